"""The machine and settings that a measurement is taken in."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterable

from quant_explorer.core.host.environment import Environment
from quant_explorer.core.host.packages import installed_version, own_version
from quant_explorer.core.recipe import digest_of
from quant_explorer.machine.cpu import cpu_model, instruction_sets
from quant_explorer.machine.memory import total_bytes
from quant_explorer.machine.topology import available_cores

# What keeps PyTorch and oneDNN (OpenVINO's too) from instruction sets that the processor has.
ISA_LIMITS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")


def describe_environment(*, threads: int, packages: Iterable[str], protocol: int = 0) -> Environment:
    """Return this machine as it matters to a figure, with the installed versions of `packages`.

    `protocol` is the version of how figures are taken, 0 for figures that no run takes.
    """
    found = {name: version for name in sorted(packages) if (version := installed_version(name))}
    environment = Environment(
        digest="",
        cpu=cpu_model(),
        instruction_sets=instruction_sets(),
        cores=available_cores(),
        memory_bytes=total_bytes(),
        threads=threads,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=found | own_version(),
        protocol=protocol,
        isa_limits={name: os.environ[name] for name in ISA_LIMITS if name in os.environ},
    )
    return dataclasses.replace(environment, digest=digest_of(dataclasses.asdict(environment)))
