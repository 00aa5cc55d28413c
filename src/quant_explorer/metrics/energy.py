"""Energy: what the CPU packages draw during a block of calls.

A package's counter covers everything that runs on it. Nothing is subtracted for an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.measurement import EnergyBlock

# The counters move about once a millisecond.
MIN_BLOCK_S = 0.2


class EnergyCounters(Protocol):
    """Counters that grow with the energy the machine draws, and may start again at 0."""

    def read(self) -> tuple[int, ...]:
        """Return their present values."""

    def joules_since(self, before: tuple[int, ...]) -> float:
        """Return the energy drawn since they had the values `before`."""


def measure_energy(
    run: Callable[[], object],
    counters: EnergyCounters,
    *,
    min_block_s: float = MIN_BLOCK_S,
) -> EnergyBlock:
    """Return calls, duration and energy of a block of calls that is at least `min_block_s` long.

    Raw values: `analysis/hardware/energy.py:energy_per_call` gives the median over rounds and its interval.
    One unmeasured call comes first. Raises UnsupportedError when the counters did not move.
    """
    run()
    before = counters.read()
    start = time.perf_counter()
    calls, elapsed = 0, 0.0
    while not calls or elapsed < min_block_s:
        run()
        calls += 1
        elapsed = time.perf_counter() - start
    joules = counters.joules_since(before)
    if not joules:
        raise UnsupportedError(f"the energy counters did not move in {elapsed:.2g} s")
    return EnergyBlock(calls, elapsed, joules)
