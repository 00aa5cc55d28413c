"""Layers and peaks of a sweep: what `layerwise_breakdown.csv` and `hardware_summary.csv` hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quant_explorer.analysis.hardware.layer_roof import roof_of_layer
from quant_explorer.core.cost.records import FloatModel
from quant_explorer.core.cost.roofline import BANDWIDTH, Peaks, ridge_macs_per_byte
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.settings.plan import SweepPlan


@dataclass(frozen=True)
class LayerRow:
    """One layer of one pruning level in one precision, for one image; `roof_s` is computed, not measured."""

    pruning: float
    precision: str
    layer: str
    kind: str
    calls: int
    input_shape: str
    output_shape: str
    macs: int
    parameters: int
    weight_bytes: int
    activation_bytes: int
    macs_per_byte: float
    bound: str | None
    roof_s: float | None


@dataclass(frozen=True)
class HardwareRow:
    """The roof of this machine in one precision; `overridden` names what the configuration gave instead."""

    cpu: str
    threads: int
    precision: str
    peak_gmacs_per_s: float | None
    gb_per_s: float
    ridge_macs_per_byte: float | None
    kernel: str
    overridden: str
    reason: str


def layer_rows(
    float_models: Mapping[float, FloatModel], peaks: Peaks | None, plan: SweepPlan
) -> tuple[LayerRow, ...]:
    """Return every layer of every pruning level, the key of `float_models`, in each precision of the grid."""
    rows = []
    for cell in plan.cells:
        float_model = float_models.get(cell.pruning)
        for layer in float_model.cost.layers if float_model else ():
            roof = roof_of_layer(layer, cell.precision, peaks)
            rows.append(
                LayerRow(
                    pruning=cell.pruning,
                    precision=cell.precision,
                    layer=layer.name,
                    kind=layer.kind,
                    calls=layer.calls,
                    input_shape="x".join(map(str, layer.input_shape)),
                    output_shape="x".join(map(str, layer.output_shape)),
                    macs=layer.macs,
                    parameters=layer.parameters,
                    weight_bytes=roof.weight_bytes,
                    activation_bytes=roof.activation_bytes,
                    macs_per_byte=roof.macs_per_byte,
                    bound=roof.bound,
                    roof_s=roof.roof_s,
                )
            )
    return tuple(rows)


def hardware_rows(environment: Environment, peaks: Peaks | None) -> tuple[HardwareRow, ...]:
    """Return a row for every precision whose peak was looked for."""
    if peaks is None:
        return ()
    return tuple(
        HardwareRow(
            cpu=environment.cpu,
            threads=peaks.threads,
            precision=precision,
            peak_gmacs_per_s=(peak := peaks.gmacs_per_s.get(precision)),
            gb_per_s=peaks.gb_per_s,
            ridge_macs_per_byte=ridge_macs_per_byte(peak, peaks.gb_per_s) if peak else None,
            kernel=peaks.kernels.get(precision, ""),
            overridden=", ".join(name for name in peaks.overrides if name in (precision, BANDWIDTH)),
            reason=peaks.reasons.get(precision, ""),
        )
        for precision in (*peaks.gmacs_per_s, *peaks.reasons)
    )
