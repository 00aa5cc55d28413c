"""Each layer under the roof: where the time of a model must go, before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass

from quant_explorer.core.cost.counts import (
    LayerCost,
    activation_bytes,
    arithmetic_intensity,
    moved_bytes,
    weight_bytes,
)
from quant_explorer.core.cost.roofline import Bound, Peaks, binding
from quant_explorer.core.quantspec import Precision


@dataclass(frozen=True)
class LayerRoof:
    """One layer in one precision, for one image: bytes, intensity, and the least time under the roof.

    `roof_s` and `bound` are None for a precision without a peak. `roof_s` is no measurement.
    """

    name: str
    kind: str
    calls: int
    macs: int
    parameters: int
    weight_bytes: int
    activation_bytes: int
    moved_bytes: int
    macs_per_byte: float
    roof_s: float | None
    bound: Bound | None


def roof_of_layer(layer: LayerCost, precision: Precision, peaks: Peaks | None) -> LayerRoof:
    """Return a layer's bytes, intensity and least time for one image; `peaks` None gives no time."""
    moved = moved_bytes(layer, precision)
    intensity = arithmetic_intensity(layer.macs, moved)
    roof_s, bound = None, None
    if peaks is not None and (peak := peaks.gmacs_per_s.get(precision)) is not None:
        roof_s = max(layer.macs / peak, moved / peaks.gb_per_s) / 1e9
        bound = binding(intensity, peak, peaks.gb_per_s)
    return LayerRoof(
        name=layer.name,
        kind=layer.kind,
        calls=layer.calls,
        macs=layer.macs,
        parameters=layer.parameters,
        weight_bytes=weight_bytes(layer, precision),
        activation_bytes=activation_bytes(layer, precision),
        moved_bytes=moved,
        macs_per_byte=intensity,
        roof_s=roof_s,
        bound=bound,
    )
