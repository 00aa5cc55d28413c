"""The machine and settings that a measurement is taken in."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import psutil

from quant_explorer.core.errors import SettingsError
from quant_explorer.core.measurement import Environment
from quant_explorer.core.packages import installed_version, own_version
from quant_explorer.core.recipe import digest_of

# What decides how fast this field's kernels are.
INSTRUCTION_SETS = (
    *("avx", "avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)
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
        memory_bytes=psutil.virtual_memory().total,
        threads=threads,
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=found | own_version(),
        protocol=protocol,
        isa_limits={name: os.environ[name] for name in ISA_LIMITS if name in os.environ},
    )
    return dataclasses.replace(environment, digest=digest_of(dataclasses.asdict(environment)))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(core_numbers())


def core_numbers() -> tuple[int, ...]:
    """Return the cores this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def measuring_cores(threads: int) -> tuple[int, ...]:
    """Return the `threads` highest-numbered cores: the lowest one serves interrupts on most machines.

    Raises SettingsError when there are fewer cores than that.
    """
    cores = core_numbers()
    if threads > len(cores):
        raise SettingsError(f"--threads {threads} is out of range. Allowed: 1 to {len(cores)} (cores here).")
    return cores[-threads:]


def idle_cores(threads: int) -> tuple[tuple[int, ...], ...]:
    """Return the cores that are no measuring cores, in sets of `threads`."""
    cores = core_numbers()[:-threads]
    return tuple(cores[end - threads : end] for end in range(len(cores), threads - 1, -threads))


def thread_environment(threads: int) -> dict[str, str]:
    """Return the settings that hold each thread pool to `threads` threads that do not spin."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "GOMP_SPINCOUNT": "0",
    }


def cpu_model() -> str:
    """Return the processor's name."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """Return those of INSTRUCTION_SETS that the processor has."""
    flags = set((_cpu_field("flags") or _cpu_field("Features") or "").split())
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def has_bfloat16() -> bool:
    """Say whether the processor multiplies bfloat16 in hardware; elsewhere it is emulated and slow."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(instruction_sets()))


def _cpu_field(field: str) -> str | None:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return None
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None
