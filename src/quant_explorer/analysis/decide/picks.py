"""Picks: which variants on the frontier are best on one axis, with ties named as ties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quant_explorer.analysis.accuracy import tied_with_best
from quant_explorer.analysis.evidence import Evidence
from quant_explorer.analysis.latency import Timings
from quant_explorer.analysis.results import Pick, VariantResult
from quant_explorer.stats.intervals import Interval


def pick(variants: Sequence[VariantResult], evidence: Evidence, batch: int) -> tuple[Pick, ...]:
    """Return the smallest, the most accurate and the fastest variants of one model's frontier.

    Equal sizes are a tie; so are accuracies whose paired difference from the best holds 0 (on the images of
    the search split that all of the frontier saw, or of the report split where it was not recorded), and
    latencies that a direct comparison does not tell from the best's. Empty when nothing is ranked.
    """
    best = [variant for variant in variants if variant.frontier.on_frontier]
    if not best:
        return ()
    return (
        Pick("smallest", evidence.model, _smallest(best)),
        Pick("most accurate", evidence.model, _most_accurate(best, evidence)),
        Pick("fastest", evidence.model, _fastest(best, evidence.timings[batch], str(batch))),
    )


def _smallest(best: Sequence[VariantResult]) -> tuple[str, ...]:
    sizes = {variant.name: variant.size.bytes for variant in best if variant.size.bytes is not None}
    return tuple(name for name, size in sizes.items() if size == min(sizes.values()))


def _most_accurate(best: Sequence[VariantResult], evidence: Evidence) -> tuple[str, ...]:
    searched = all(variant.digest in evidence.search_hits for variant in best)
    scored = evidence.search_hits if searched else evidence.hits
    hits = [scored[variant.digest] for variant in best]
    common = hits[0].positions
    for hit in hits[1:]:
        common = np.intersect1d(common, hit.positions)
    if not len(common):
        return tuple(variant.name for variant in best)
    return tuple(best[index].name for index in tied_with_best([hit.at(common) for hit in hits]))


def _fastest(best: Sequence[VariantResult], timings: Timings, batch: str) -> tuple[str, ...]:
    """The fastest, and those that a direct comparison with it does not tell from it."""
    order = sorted(best, key=lambda variant: variant.latency[batch].p50_s or float("inf"))
    first = order[0]
    return tuple(
        variant.name
        for variant in order
        if variant is first or _tied(timings.compare(first.digest, variant.digest))
    )


def _tied(found: tuple[float, Interval] | str) -> bool:
    return isinstance(found, str) or found[1].low <= 1.0
