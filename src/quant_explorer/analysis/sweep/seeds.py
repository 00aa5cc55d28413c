"""Several seeds of one sweep: how much of a figure is the luck of one training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.place import SEED, RankedVariant, draw_points
from quant_explorer.analysis.sweep.rows import SweepRow
from quant_explorer.core.measurement import Status
from quant_explorer.stats.frontier import Objective, frontier_probability
from quant_explorer.stats.intervals import mean_interval


@dataclass(frozen=True)
class SeedRow:
    """One variant over the seeds in which it was measured: mean, standard deviation, Student's t interval.

    With one seed there is a mean and nothing else. `frontier_probability` counts the variance between seeds
    as well as that of images and rounds; it is of the variants that all seeds ranked.
    """

    config: str
    runtime: str
    pruning: float | None
    precision: str | None
    seeds: int
    frontier_probability: float | None
    top1_mean: float | None
    top1_sd: float | None
    top1_low: float | None
    top1_high: float | None
    diff_pp_mean: float | None
    diff_pp_sd: float | None
    diff_pp_low: float | None
    diff_pp_high: float | None
    latency_p50_s_mean: float | None
    latency_p50_s_sd: float | None
    latency_p50_s_low: float | None
    latency_p50_s_high: float | None
    speedup_mean: float | None
    speedup_sd: float | None
    speedup_low: float | None
    speedup_high: float | None
    size_bytes_mean: float | None
    size_bytes_sd: float | None


@dataclass(frozen=True)
class _Spread:
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def summarize_seeds(
    rows: Sequence[SweepRow],
    ranked: Sequence[Mapping[str, RankedVariant]],
    objectives: Sequence[Objective],
    draws: int,
) -> tuple[SeedRow, ...]:
    """Return a row for each variant; `ranked` has one mapping a seed, keyed by the variant's name."""
    probability = probability_over_seeds(ranked, objectives, draws)
    by_name: dict[str, list[SweepRow]] = {}
    for row in rows:
        by_name.setdefault(f"{row.config}@{row.runtime}", []).append(row)
    return tuple(_summarize(found, probability.get(name)) for name, found in by_name.items())


def probability_over_seeds(
    ranked: Sequence[Mapping[str, RankedVariant]], objectives: Sequence[Objective], draws: int
) -> dict[str, float]:
    """Return the share of draws in which each variant that all seeds ranked is on the frontier.

    A draw resamples the seeds with replacement, within each of them rounds and images, and averages size,
    latency and accuracy over the seeds drawn: a bootstrap in two stages (Davison and Hinkley, Bootstrap
    Methods and their Application, 1997, section 3.8).
    """
    names = [name for name in ranked[0] if all(name in seed for seed in ranked)]
    if not names:
        return {}
    points = np.stack(
        [
            draw_points([seed[name] for name in names], draws, SEED + 2 * number)
            for number, seed in enumerate(ranked)
        ]
    )
    chosen = np.random.default_rng(SEED).integers(len(ranked), size=(draws, len(ranked)))
    drawn: NDArray[np.float64] = points[chosen, np.arange(draws)[:, None]].mean(axis=1)
    return dict(zip(names, frontier_probability(drawn, objectives).tolist(), strict=True))


def _summarize(rows: Sequence[SweepRow], probability: float | None) -> SeedRow:
    measured = [row for row in rows if row.status == Status.OK]

    def spread(figure: Callable[[SweepRow], float | None]) -> _Spread:
        return _spread([value for row in measured if (value := figure(row)) is not None])

    top1, difference = spread(lambda row: row.top1), spread(lambda row: row.diff_pp)
    latency, speedup = spread(lambda row: row.latency_p50_s), spread(lambda row: row.speedup)
    size = spread(lambda row: row.size_bytes)
    return SeedRow(
        config=rows[0].config,
        runtime=rows[0].runtime,
        pruning=rows[0].pruning,
        precision=rows[0].precision,
        seeds=len(measured),
        frontier_probability=probability,
        top1_mean=top1.mean,
        top1_sd=top1.sd,
        top1_low=top1.low,
        top1_high=top1.high,
        diff_pp_mean=difference.mean,
        diff_pp_sd=difference.sd,
        diff_pp_low=difference.low,
        diff_pp_high=difference.high,
        latency_p50_s_mean=latency.mean,
        latency_p50_s_sd=latency.sd,
        latency_p50_s_low=latency.low,
        latency_p50_s_high=latency.high,
        speedup_mean=speedup.mean,
        speedup_sd=speedup.sd,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        size_bytes_mean=size.mean,
        size_bytes_sd=size.sd,
    )


def _spread(values: Sequence[float]) -> _Spread:
    if len(values) < 2:
        return _Spread(mean(values)) if values else _Spread()
    _, interval = mean_interval(np.array(values, dtype=np.float64))
    return _Spread(mean(values), stdev(values), interval.low, interval.high)
