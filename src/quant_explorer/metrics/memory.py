"""Peak memory: the high-water mark of a variant's own process while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quant_explorer.core.contracts import Batch
from quant_explorer.core.measurement import PeakMemory

_CALLS = 3


class HighWaterMark(Protocol):
    """The most memory this process has held since the last reset."""

    def reset_peak(self) -> None:
        """Set the mark to what the process holds now."""

    def read_peak_bytes(self) -> int:
        """Return the mark in bytes."""


def measure_peak(
    run: Callable[[Batch], Batch], batch: Batch, mark: HighWaterMark, *, floor_bytes: int, loaded_bytes: int
) -> PeakMemory:
    """Run `batch` a few times and return the high-water mark of resident memory meanwhile."""
    mark.reset_peak()
    for _ in range(_CALLS):
        run(batch)
    return PeakMemory(len(batch), floor_bytes, loaded_bytes, mark.read_peak_bytes())
