"""Settling: which variants need no more rounds, since something better on every axis dominates them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.latency import Timings
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.timing.contender import Contender
from quant_explorer.stats.paired import compare_paired


def newly_settled(
    timings: Timings, contenders: Sequence[Contender], baseline: Contender, subject: Subject
) -> set[str]:
    """Return the digests that something surely faster, no larger and surely no less accurate dominates.

    Faster is a direct comparison of the two, in the rounds that timed both.
    """
    truth = _truth(baseline, subject)
    return {
        loser.digest
        for loser in contenders
        for winner in contenders
        if winner is not loser
        and loser is not baseline
        and winner.size_bytes <= loser.size_bytes
        and _surely_faster(timings, winner.digest, loser.digest)
        and _surely_no_less_accurate(winner, loser, truth)
    }


def _surely_faster(timings: Timings, winner: str, loser: str) -> bool:
    found = timings.compare(winner, loser)
    return not isinstance(found, str) and found[1].low > 1.0


def _truth(baseline: Contender, subject: Subject) -> NDArray[np.int64]:
    """What a variant should have predicted: labels, or without training what the baseline did."""
    truth = subject.dataset.report.labels.copy()
    predictions = baseline.measurement.predictions
    if predictions is not None and not predictions.trained:
        truth[np.array(predictions.positions)] = predictions.top1
    return truth


def _surely_no_less_accurate(winner: Contender, loser: Contender, truth: NDArray[np.int64]) -> bool:
    """Right on the very same images, or more accurate beyond the interval of the paired difference."""
    hits = [_correct(contender, truth) for contender in (winner, loser)]
    both = ~np.isnan(hits[0]) & ~np.isnan(hits[1])
    if not both.any():
        return False
    won, lost = hits[0][both] == 1, hits[1][both] == 1
    return bool(both.all() and (won == lost).all()) or compare_paired(won, lost).interval_pp.low > 0


def _correct(contender: Contender, truth: NDArray[np.int64]) -> NDArray[np.float64]:
    correct = np.full(len(truth), np.nan)
    predictions = contender.measurement.predictions
    if predictions is not None:
        positions = np.array(predictions.positions)
        correct[positions] = truth[positions] == np.array(predictions.top1)
    return correct
