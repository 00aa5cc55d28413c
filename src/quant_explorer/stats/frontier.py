"""Frontier: which points nothing else beats on every axis, and how sure that is. Pure functions on arrays.

moocore finds non-dominated points and hypervolumes; it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

_DRAWS_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Objective:
    """One axis: what is compared, which way is better, and in which unit."""

    name: str
    direction: Literal["minimize", "maximize"]
    unit: str


def on_frontier(points: NDArray[np.float64], objectives: Sequence[Objective]) -> NDArray[np.bool_]:
    """Say of each point (n, n_objectives) whether no other dominates it; equal points are both kept.

    Raises ValueError for points of another shape or not finite. Source: `moocore.is_nondominated`.
    """
    from moocore import is_nondominated

    _require_points(points, objectives)
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    kept = is_nondominated(points, maximise=_maximise(objectives), keep_weakly=True)
    return np.asarray(kept, dtype=np.bool_)


def dominated_by(points: NDArray[np.float64], objectives: Sequence[Objective]) -> tuple[tuple[int, ...], ...]:
    """Return for each point (n, n_objectives) the indices of the points that dominate it, ascending.

    One point dominates another when it is nowhere worse and somewhere better. Raises ValueError for
    points of another shape or not finite.
    """
    _require_points(points, objectives)
    costs = np.where(_maximise(objectives), -points, points)
    nowhere_worse = np.all(costs[None, :, :] <= costs[:, None, :], axis=2)
    somewhere_better = np.any(costs[None, :, :] < costs[:, None, :], axis=2)
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in nowhere_worse & somewhere_better)


def frontier_probability(draws: NDArray[np.float64], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Share of joint draws (n_draws, n, n_objectives) in which each point is on the frontier, shape (n,).

    Raises ValueError for draws of another shape, none at all, or not finite.
    """
    if draws.ndim != 3 or len(draws) == 0:
        raise ValueError(f"draws must be of shape (n_draws, n, n_objectives), got {draws.shape}")
    counts = np.zeros(draws.shape[1], dtype=np.float64)
    for points in draws:
        counts += on_frontier(points, objectives)
    return counts / len(draws)


def hypervolume(
    points: NDArray[np.float64], objectives: Sequence[Objective], reference: NDArray[np.float64]
) -> float:
    """Volume that the points (n, n_objectives) dominate, up to `reference` (n_objectives,), in their units.

    A point that is not better than the reference on every axis adds nothing. Raises ValueError for points
    or a reference of another shape or not finite. Source: `moocore.hypervolume`.
    """
    from moocore import hypervolume as dominated_volume

    _require_points(points, objectives)
    if reference.shape != (len(objectives),) or not np.all(np.isfinite(reference)):
        raise ValueError(f"the reference must be {len(objectives)} finite values, got {reference!r}")
    if len(points) == 0:
        return 0.0
    return float(dominated_volume(points, reference, maximise=_maximise(objectives)))


def draw_accuracy(correct: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap the accuracy of all variants over the same resampled images, shape (draws, n_variants).

    `correct` (n_variants, n_images) is 1 where a variant got an image right, 0 where not (or any other
    score of an image) and NaN where it did not see it. A variant that saw none of the images of a draw
    gets its overall accuracy there. Images that fared alike with every variant are exchangeable, so that
    the multinomial draw is one of outcomes, not of images. Raises ValueError for another shape, infinite
    values and a variant that saw no image. Source: Efron (1979), Ann. Stat. 7(1).
    """
    _require_observed(correct.T)
    overall = np.nanmean(correct, axis=1)
    outcomes, images = np.unique(np.where(np.isnan(correct), np.inf, correct), axis=1, return_counts=True)
    seen = np.isfinite(outcomes).astype(np.float64).T
    right = np.where(np.isfinite(outcomes), outcomes, 0.0).T
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(correct)), dtype=np.float64)
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        counts = rng.multinomial(images.sum(), images / images.sum(), size=size).astype(np.float64)
        totals = counts @ seen
        accuracy = counts @ right / np.maximum(totals, 1.0)
        drawn[start : start + size] = np.where(totals > 0, accuracy, overall)
    return drawn


def draw_latency(medians: NDArray[np.float64], draws: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap the median of all variants over the same resampled rounds, shape (draws, n_variants).

    `medians` (n_rounds, n_variants) are the rounds' medians, NaN where a variant was not timed in a round.
    A variant without a round in a draw gets its overall median there. Where variants were not timed in the
    same rounds, give each round's medians relative to its baseline's: else drift between the rounds counts
    as a difference between variants. Raises ValueError for another shape, infinite values and a variant
    that was never timed. Source: Efron (1979), Ann. Stat. 7(1).
    """
    _require_observed(medians)
    overall = np.nanmedian(medians, axis=0)
    rounds, variants = medians.shape
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, variants), dtype=np.float64)
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        sample = medians[rng.integers(rounds, size=(size, rounds))]
        untimed = np.all(np.isnan(sample), axis=1, keepdims=True)
        drawn[start : start + size] = np.nanmedian(np.where(untimed, overall, sample), axis=1)
    return drawn


def _maximise(objectives: Sequence[Objective]) -> list[bool]:
    return [objective.direction == "maximize" for objective in objectives]


def _require_points(points: NDArray[np.float64], objectives: Sequence[Objective]) -> None:
    if points.ndim != 2 or points.shape[1] != len(objectives) or not objectives:
        raise ValueError(f"points must be of shape (n, {len(objectives)}), got {points.shape}")
    if not np.all(np.isfinite(points)):
        raise ValueError("points must be finite; leave out what has a missing figure")


def _require_observed(values: NDArray[np.float64]) -> None:
    if values.ndim != 2 or values.size == 0 or np.any(np.isinf(values)):
        raise ValueError(f"need a 2-D array of finite values or NaN, got shape {values.shape}")
    if np.any(np.all(np.isnan(values), axis=0)):
        raise ValueError("a variant without any observation cannot be resampled")
