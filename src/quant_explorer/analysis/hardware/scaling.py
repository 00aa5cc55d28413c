"""An estimate for the same CPU at a slower clock. Measured figures are never scaled.

The model: a layer is bound by arithmetic or by memory (`analysis/hardware/layer_roof.py`). What arithmetic
binds takes 1 / scale times as long; what memory binds takes as long as before, for the clock of the memory
stays. The measured latency is divided between the two in proportion to their least times under the roof.

Its limits: the cost of calls and of Python is in the measured latency and is divided in the same
proportion, though it follows the clock entirely; caches follow the clock of the core too; a
machine with another cache, another memory or other instructions is not this machine at a slower clock. The
upper estimate, everything scaled, is what no slow-down of the clock alone can exceed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quant_explorer.analysis.hardware.layer_roof import LayerRoof
from quant_explorer.core.errors import SettingsError


@dataclass(frozen=True)
class ClockEstimate:
    """Latency at `cpu_frequency_scale` of the measured clock: an estimate, and one with everything scaled."""

    cpu_frequency_scale: float
    compute_share_estimate: float
    latency_s_estimate: float
    latency_s_upper_estimate: float


def compute_share(layers: Iterable[LayerRoof]) -> float | None:
    """Return the share in [0, 1] of the least time that layers bound by arithmetic take.

    Layers that do not multiply are taken as fused and left out. None where no layer multiplies or one has
    no peak.
    """
    total = bound_s = 0.0
    for layer in layers:
        if not layer.macs:
            continue
        if layer.roof_s is None:
            return None
        total += layer.roof_s
        bound_s += layer.roof_s if layer.bound == "compute" else 0.0
    return bound_s / total if total else None


def estimate_at_clock(latency_s: float, share: float, cpu_frequency_scale: float) -> ClockEstimate:
    """Return latency x (share / scale + 1 - share), for the `share` that arithmetic binds.

    Raises SettingsError for a scale outside (0, 1], ValueError for a share outside [0, 1].
    """
    if not 0 < cpu_frequency_scale <= 1:
        raise SettingsError(
            f"cpu_frequency_scale {cpu_frequency_scale} is out of range. Allowed: above 0, at most 1."
        )
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies in [0, 1], got {share}")
    return ClockEstimate(
        cpu_frequency_scale=cpu_frequency_scale,
        compute_share_estimate=share,
        latency_s_estimate=latency_s * (share / cpu_frequency_scale + 1 - share),
        latency_s_upper_estimate=latency_s / cpu_frequency_scale,
    )
