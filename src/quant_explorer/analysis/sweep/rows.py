"""One flat row a variant of a sweep: what `sweep_results.csv` holds.

Every figure is in the unit its name ends with; a share is between 0 and 1, `_pp` are percentage points.
Columns that end in `_estimate` or `_proxy_j` are computed, not measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quant_explorer.analysis.decide.budgets import judge
from quant_explorer.analysis.decide.search_split import SearchSplit
from quant_explorer.analysis.hardware.energy import energy_per_call, energy_proxy_j
from quant_explorer.analysis.hardware.layer_roof import roof_of_layer
from quant_explorer.analysis.hardware.scaling import ClockEstimate, compute_share, estimate_at_clock
from quant_explorer.analysis.results import Accuracy, Latency, VariantResult
from quant_explorer.core.cost.counts import model_moved_bytes, peak_activation_bytes
from quant_explorer.core.cost.records import FloatModel
from quant_explorer.core.cost.roofline import Peaks, RooflinePoint, locate
from quant_explorer.core.measurement import (
    EnergyBlock,
)
from quant_explorer.core.quantspec import Precision
from quant_explorer.core.settings.plan import Cell, SweepPlan
from quant_explorer.stats.intervals import Interval


@dataclass(frozen=True)
class Machine:
    """What is known of the float model of each variant (by digest), of the machine, and of energy."""

    float_models: dict[str, FloatModel]
    peaks: Peaks | None
    energy: dict[str, tuple[EnergyBlock, ...]]


@dataclass(frozen=True)
class SweepRow:
    """One variant of one seed; a figure that is missing is None, and `reason` or `notes` say why."""

    seed: int
    config: str
    runtime: str
    pruning: float | None
    precision: str | None
    status: str
    reason: str | None
    on_frontier: bool | None
    frontier_probability: float | None
    over_budget: str
    size_bytes: int | None
    size_ratio: float | None
    images: int | None
    top1: float | None
    top1_low: float | None
    top1_high: float | None
    diff_pp: float | None
    diff_low_pp: float | None
    diff_high_pp: float | None
    verdict: str | None
    latency_p50_s: float | None
    latency_low_s: float | None
    latency_high_s: float | None
    latency_p95_s: float | None
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    speedup_same_runtime: float | None
    slower_clock_latency_s_estimate: float | None
    slower_clock_latency_s_upper_estimate: float | None
    peak_memory_bytes: int | None
    peak_memory_largest_batch_bytes: int | None
    live_activation_bytes_estimate: int | None
    cold_start_s: float | None
    int8_mac_fraction: float | None
    macs: int | None
    parameters: int | None
    channels_removed: float | None
    parameters_removed: float | None
    macs_removed: float | None
    macs_per_byte: float | None
    gmacs_per_s: float | None
    roof_gmacs_per_s: float | None
    roof_share: float | None
    bound: str | None
    energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    energy_proxy_j: float | None
    notes: str
    digest: str


def sweep_rows(
    seed: int,
    variants: Iterable[VariantResult],
    batch: int,
    largest: int,
    machine: Machine,
    plan: SweepPlan,
    search: SearchSplit,
) -> tuple[SweepRow, ...]:
    """Return a row for every variant, in the order given; `batch` is the batch size that is ranked."""
    return tuple(_row(seed, variant, batch, largest, machine, plan, search) for variant in variants)


def used_precision(variant: VariantResult, cell: Cell | None) -> Precision:
    """Return what most multiply-accumulates ran in, or what was asked for where that is not known."""
    macs = variant.executed.macs or {}
    order: tuple[Precision, ...] = ("int8", "bf16", "fp16", "fp32")
    asked: Precision = cell.precision if cell else "fp32"
    return max((level for level in order if macs.get(level)), key=lambda level: macs[level], default=asked)


def _row(
    seed: int,
    variant: VariantResult,
    batch: int,
    largest: int,
    machine: Machine,
    plan: SweepPlan,
    search: SearchSplit,
) -> SweepRow:
    cell = plan.cell(variant.config)
    float_model = machine.float_models.get(variant.digest)
    unpruned = next((model for model in machine.float_models.values() if not model.steps), None)
    precision = used_precision(variant, cell)
    latency = variant.latency.get(str(batch)) or Latency()
    accuracy = variant.accuracy
    memory = variant.memory.peak_bytes or {}
    roof = _roof(variant, batch, float_model, machine.peaks, precision)
    clock = _slower_clock(latency, float_model, machine.peaks, precision, plan.frequency_scale)
    blocks = machine.energy.get(variant.digest, ())
    energy, energy_ci = energy_per_call(blocks) if len(blocks) > 1 else (None, None)
    top1_ci = accuracy.top1_ci if accuracy else None
    diff_ci = accuracy.diff_ci_pp if accuracy else None
    excesses = dict.fromkeys(
        excess.describe()
        for budgets in plan.budgets
        for excess in judge(
            variant, budgets, batch=batch, search=search.change_that_decides(variant.digest, budgets)
        )
    )
    return SweepRow(
        seed=seed,
        config=variant.config,
        runtime=variant.runtime,
        pruning=cell.pruning if cell else None,
        precision=cell.precision if cell else None,
        status=variant.status.value,
        reason=variant.reason,
        on_frontier=variant.frontier.on_frontier,
        frontier_probability=variant.frontier.probability,
        over_budget="; ".join(excesses),
        size_bytes=variant.size.bytes,
        size_ratio=variant.size.ratio,
        images=accuracy.images if accuracy else None,
        top1=accuracy.top1 if accuracy else None,
        top1_low=_low(top1_ci),
        top1_high=_high(top1_ci),
        diff_pp=accuracy.diff_pp if accuracy else None,
        diff_low_pp=_low(diff_ci),
        diff_high_pp=_high(diff_ci),
        verdict=_verdict(accuracy),
        latency_p50_s=latency.p50_s,
        latency_low_s=_low(latency.p50_ci_s),
        latency_high_s=_high(latency.p50_ci_s),
        latency_p95_s=latency.p95_s,
        speedup=latency.speedup,
        speedup_low=_low(latency.speedup_ci),
        speedup_high=_high(latency.speedup_ci),
        speedup_same_runtime=latency.speedup_same_runtime,
        slower_clock_latency_s_estimate=clock.latency_s_estimate if clock else None,
        slower_clock_latency_s_upper_estimate=clock.latency_s_upper_estimate if clock else None,
        peak_memory_bytes=memory.get(str(batch)),
        peak_memory_largest_batch_bytes=memory.get(str(largest)),
        live_activation_bytes_estimate=(
            peak_activation_bytes(float_model.cost, precision) if float_model else None
        ),
        cold_start_s=variant.cold_start_s,
        int8_mac_fraction=variant.executed.int8_mac_fraction,
        macs=float_model.cost.macs if float_model else None,
        parameters=_parameters(float_model),
        channels_removed=_removed(*float_model.channels) if float_model and float_model.channels else None,
        parameters_removed=_removed(_parameters(unpruned), _parameters(float_model)),
        macs_removed=_removed(
            unpruned.cost.macs if unpruned else None, float_model.cost.macs if float_model else None
        ),
        macs_per_byte=roof.macs_per_byte if roof else None,
        gmacs_per_s=roof.achieved_gmacs_per_s if roof else None,
        roof_gmacs_per_s=roof.attainable_gmacs_per_s if roof else None,
        roof_share=roof.roof_share if roof else None,
        bound=roof.bound if roof else None,
        energy_j=energy,
        energy_low_j=_low(energy_ci),
        energy_high_j=_high(energy_ci),
        energy_proxy_j=(
            energy_proxy_j(plan.power_watts, latency.p50_s)
            if plan.power_watts is not None and latency.p50_s is not None and energy is None
            else None
        ),
        notes="; ".join(variant.notes),
        digest=variant.digest,
    )


def _roof(
    variant: VariantResult,
    batch: int,
    float_model: FloatModel | None,
    peaks: Peaks | None,
    precision: Precision,
) -> RooflinePoint | None:
    """Place a variant under the roof; None where the latency, the work or a peak is not known."""
    latency, macs = variant.latency.get(str(batch)), variant.executed.macs
    if latency is None or latency.p50_s is None or float_model is None or peaks is None or not macs:
        return None
    moved = model_moved_bytes(float_model.cost.layers, precision, batch)
    whole = {name: count * batch for name, count in macs.items()}
    return locate(whole, moved, latency.p50_s, peaks) if moved else None


def _slower_clock(
    latency: Latency,
    float_model: FloatModel | None,
    peaks: Peaks | None,
    precision: Precision,
    scale: float,
) -> ClockEstimate | None:
    if scale == 1 or latency.p50_s is None or float_model is None or peaks is None:
        return None
    share = compute_share(roof_of_layer(layer, precision, peaks) for layer in float_model.cost.layers)
    return None if share is None else estimate_at_clock(latency.p50_s, share, scale)


def _parameters(float_model: FloatModel | None) -> int | None:
    return sum(layer.parameters for layer in float_model.cost.layers) if float_model else None


def _removed(before: int | None, after: int | None) -> float | None:
    return 1 - after / before if before and after is not None else None


def _verdict(accuracy: Accuracy | None) -> str | None:
    return accuracy.verdict if accuracy else None


def _low(interval: Interval | None) -> float | None:
    return interval.low if interval else None


def _high(interval: Interval | None) -> float | None:
    return interval.high if interval else None
