"""The tables of a sweep: the findings of its seeds joined, one row type a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from quant_explorer.analysis.hardware.rows import HardwareRow, LayerRow, hardware_rows, layer_rows
from quant_explorer.analysis.sweep.findings import SeedFindings
from quant_explorer.analysis.sweep.interaction import Interaction
from quant_explorer.analysis.sweep.rows import SweepRow
from quant_explorer.analysis.sweep.seeds import SeedRow, summarize_seeds
from quant_explorer.analysis.sweep.summary import SweepSummary, summarize_sweep
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import SweepPlan
from quant_explorer.stats.frontier import Objective, on_frontier

_ENERGY_AXES = (
    Objective("size_bytes", "minimize", "bytes"),
    Objective("energy_j", "minimize", "J"),
    Objective("top1", "maximize", "share"),
)


@dataclass(frozen=True)
class ErrorRow:
    """A variant that has no figures, and why."""

    seed: int
    config: str
    runtime: str
    status: str
    reason: str


@dataclass(frozen=True)
class SweepTables:
    """Everything a sweep's report is written from.

    `rows` are those of all seeds; `layers` and `hardware` are of the first seed, whose models and machine
    stand for all. `energy_frontier` is empty where energy was not measured.
    """

    rows: tuple[SweepRow, ...]
    energy_frontier: tuple[SweepRow, ...]
    seeds: tuple[SeedRow, ...]
    layers: tuple[LayerRow, ...]
    interactions: tuple[Interaction, ...]
    hardware: tuple[HardwareRow, ...]
    errors: tuple[ErrorRow, ...]
    peaks: Peaks | None
    summary: SweepSummary


def tabulate_sweep(seeds: Sequence[SeedFindings], plan: SweepPlan, *, draws: int = 2000) -> SweepTables:
    """Join the seeds, of which there is at least one.

    `draws` is how often seeds, rounds and images are resampled. Raises StudyError for seeds that were
    measured in different environments.
    """
    first = seeds[0]
    summary = summarize_sweep(seeds, plan)
    rows = tuple(row for seed in seeds for row in seed.rows)
    ranked = [seed.ranked for seed in seeds]
    return SweepTables(
        rows=rows,
        energy_frontier=tuple(row for seed in seeds for row in energy_frontier(seed.rows)),
        seeds=summarize_seeds(rows, ranked, first.results.objectives, draws),
        layers=layer_rows(first.float_models, first.peaks, plan),
        interactions=tuple(interaction for seed in seeds for interaction in seed.interactions),
        hardware=hardware_rows(first.results.environment, first.peaks),
        errors=tuple(error for seed in seeds for error in _errors(seed)),
        peaks=first.peaks,
        summary=summary,
    )


def energy_frontier(rows: Sequence[SweepRow]) -> tuple[SweepRow, ...]:
    """Return the rows of one seed that none of the others beats in size, energy and top-1."""
    complete = [row for row in rows if None not in (row.size_bytes, row.energy_j, row.top1)]
    points = np.array([[row.size_bytes, row.energy_j, row.top1] for row in complete], np.float64)
    kept = on_frontier(points.reshape(-1, len(_ENERGY_AXES)), _ENERGY_AXES)
    return tuple(row for row, keep in zip(complete, kept, strict=True) if keep)


def _errors(seed: SeedFindings) -> Iterator[ErrorRow]:
    for variant in seed.results.variants:
        if variant.status is not Status.OK:
            reason = variant.reason or "no reason was recorded"
            yield ErrorRow(seed.seed, variant.config, variant.runtime, variant.status.value, reason)
