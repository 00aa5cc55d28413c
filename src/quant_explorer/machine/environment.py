"""The machine and settings that a measurement is taken in."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from quant_explorer.core.measurement import Environment
from quant_explorer.core.packages import installed_version
from quant_explorer.core.recipe import digest_of
from quant_explorer.machine.cpu import cpu_model, instruction_sets
from quant_explorer.machine.memory import total_bytes
from quant_explorer.machine.topology import available_cores


def describe_environment(*, threads: int, packages: Iterable[str]) -> Environment:
    """Return this machine as it matters to a figure, with the installed versions of `packages`."""
    versions = {name: version for name in sorted(packages) if (version := installed_version(name))}
    fields: dict[str, object] = {
        "cpu": cpu_model(),
        "instruction_sets": list(instruction_sets()),
        "cores": available_cores(),
        "memory_bytes": total_bytes(),
        "threads": threads,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }
    return Environment(
        digest=digest_of(fields),
        cpu=cpu_model(),
        instruction_sets=instruction_sets(),
        cores=available_cores(),
        memory_bytes=total_bytes(),
        threads=threads,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions,
    )
