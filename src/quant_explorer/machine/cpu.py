"""The processor: its name and its instruction sets."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What decides how fast this field's kernels are.
INSTRUCTION_SETS = (
    *("avx", "avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16"),
    *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
)


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name."""
    return _read_field("model name", cpuinfo) or platform.processor() or platform.machine()


def instruction_sets(cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """Return those of INSTRUCTION_SETS that the processor has."""
    flags = set((_read_field("flags", cpuinfo) or _read_field("Features", cpuinfo) or "").split())
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def _read_field(field: str, cpuinfo: Path) -> str | None:
    if not cpuinfo.exists():
        return None
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None
