"""Picks: which variants on the frontier are best on one axis, with ties named as ties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quant_explorer.core.stats import Interval
from quant_explorer.report.accuracy import tied_with_best
from quant_explorer.report.evidence import Evidence
from quant_explorer.report.results import Pick, VariantResult


def pick(variants: Sequence[VariantResult], evidence: Evidence, batch: int) -> tuple[Pick, ...]:
    """Return the smallest, the most accurate and the fastest variants of one model's frontier.

    Equal sizes are a tie; so are accuracies whose paired difference from the best holds 0 (on the images
    that all of the frontier saw), and speed-ups whose intervals overlap the best's. Empty when nothing
    is ranked.
    """
    best = [variant for variant in variants if variant.frontier.on_frontier]
    if not best:
        return ()
    return (
        Pick("smallest", evidence.model, _smallest(best)),
        Pick("most accurate", evidence.model, _most_accurate(best, evidence)),
        Pick("fastest", evidence.model, _fastest(best, str(batch))),
    )


def _smallest(best: Sequence[VariantResult]) -> tuple[str, ...]:
    sizes = {variant.name: variant.size.bytes for variant in best if variant.size.bytes is not None}
    return tuple(name for name, size in sizes.items() if size == min(sizes.values()))


def _most_accurate(best: Sequence[VariantResult], evidence: Evidence) -> tuple[str, ...]:
    hits = [evidence.hits[variant.digest] for variant in best]
    common = hits[0].positions
    for one in hits[1:]:
        common = np.intersect1d(common, one.positions)
    if not len(common):
        return tuple(variant.name for variant in best)
    return tuple(best[index].name for index in tied_with_best([one.at(common) for one in hits]))


def _fastest(best: Sequence[VariantResult], batch: str) -> tuple[str, ...]:
    speeds: dict[str, tuple[float, Interval]] = {}
    for variant in best:
        latency = variant.latency[batch]
        if latency.speedup is not None and latency.speedup_ci is not None:
            speeds[variant.name] = latency.speedup, latency.speedup_ci
    if not speeds:
        return (min(best, key=lambda variant: variant.latency[batch].p50_s or float("inf")).name,)
    order = sorted(speeds, key=lambda name: -speeds[name][0])
    lowest = speeds[order[0]][1].low
    return tuple(name for name in order if name == order[0] or speeds[name][1].high >= lowest)
