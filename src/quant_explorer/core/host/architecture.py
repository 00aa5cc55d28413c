"""The kind of this CPU, and which of its features multiply in 16 bits; found without any library."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from quant_explorer.core.quantspec import Precision

HALF_PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16")
# As Linux names them in /proc/cpuinfo, and `torch.cpu.get_capabilities` where that has another name.
_ARITHMETIC: dict[Precision, frozenset[str]] = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp", "fp16_arith"}),
}


def architecture() -> str:
    """Return the architecture as Linux names it: "x86_64", "aarch64", "riscv64", ..."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def is_arm() -> bool:
    """Return whether this is a 64-bit Arm CPU."""
    return architecture() == "aarch64"


def is_x86() -> bool:
    """Return whether this is a 64-bit x86 CPU."""
    return architecture() == "x86_64"


def has_arithmetic(precision: Precision, features: Iterable[str]) -> bool:
    """Return whether a CPU with `features` multiplies in `precision` itself: "bf16" or "fp16".

    Others convert to float32 and back. Raises KeyError for another precision.
    """
    return not _ARITHMETIC[precision].isdisjoint(features)
