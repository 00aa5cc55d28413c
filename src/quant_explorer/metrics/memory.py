"""Resident memory of this process: now, and its high-water mark since the last reset.

Linux keeps the mark in /proc/self/status (VmHWM) and resets it when "5" is written to
/proc/self/clear_refs (proc(5)).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import explain
from quant_explorer.core.measurement import PeakMemory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CALLS = 3


def unavailable() -> str | None:
    """Return why peak memory cannot be measured here, or None."""
    try:
        reset_peak()
        read_peak_bytes()
    except (OSError, ValueError) as error:
        return f"the kernel does not offer a resettable high-water mark of resident memory ({explain(error)})"
    return None


def read_resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    return _read("VmRSS")


def read_peak_bytes() -> int:
    """Return the high-water mark of resident memory since the last reset, in bytes."""
    return _read("VmHWM")


def reset_peak() -> None:
    """Set the high-water mark to the present resident memory."""
    _CLEAR.write_text("5")


def measure_peak(
    run: Callable[[Batch], Batch], batch: Batch, *, floor_bytes: int, loaded_bytes: int
) -> PeakMemory:
    """Run `batch` a few times and return the high-water mark of resident memory meanwhile."""
    reset_peak()
    for _ in range(_CALLS):
        run(batch)
    return PeakMemory(len(batch), floor_bytes, loaded_bytes, read_peak_bytes())


def _read(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), flags=re.MULTILINE)
    if match is None:
        raise ValueError(f"{_STATUS} has no {field}")
    return int(match[1]) * 1024
