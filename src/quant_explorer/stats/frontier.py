"""Frontier: which points nothing else beats on every axis, and how sure that is.

moocore finds non-dominated points; it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


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


def _maximise(objectives: Sequence[Objective]) -> list[bool]:
    return [objective.direction == "maximize" for objective in objectives]


def _require_points(points: NDArray[np.float64], objectives: Sequence[Objective]) -> None:
    if points.ndim != 2 or points.shape[1] != len(objectives) or not objectives:
        raise ValueError(f"points must be of shape (n, {len(objectives)}), got {points.shape}")
    if not np.all(np.isfinite(points)):
        raise ValueError("points must be finite; leave out what has a missing figure")
