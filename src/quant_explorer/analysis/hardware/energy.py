"""Energy of a call: from blocks of calls that a counter was read around, or a proxy where none is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quant_explorer.core.measurement import EnergyBlock
from quant_explorer.stats.intervals import Interval, median_interval


def energy_per_call(blocks: Sequence[EnergyBlock]) -> tuple[float, Interval]:
    """Return the median over blocks of joules a call, and its 95 % interval (`stats/intervals.py`).

    Raises ValueError for fewer than 2 blocks, and for one without calls or in which the counter stood still.
    """
    if not all(block.calls > 0 for block in blocks):
        raise ValueError("a block without calls has no energy a call")
    return median_interval(np.array([block.energy_j / block.calls for block in blocks], dtype=np.float64))


def energy_proxy_j(power_watts: float, latency_s: float) -> float:
    """Return power x latency in joules, for a machine without a readable energy counter.

    This is the latency axis again: with one power for all variants it ranks them as latency does, and says
    nothing of a kernel that draws more. Raises ValueError for a power or a latency that is not positive.
    """
    if not (power_watts > 0 and latency_s > 0):
        raise ValueError(f"power and latency must be positive, got {power_watts} W and {latency_s} s")
    return power_watts * latency_s
