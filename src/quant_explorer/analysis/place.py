"""Places on the frontier: exact dominance on the points, and how sure it is under joint resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.results import Place
from quant_explorer.stats.frontier import Objective, dominated_by, frontier_probability, on_frontier
from quant_explorer.stats.resampling import draw_accuracy, draw_latency

SEED = 20_240_607


@dataclass(frozen=True)
class RankedVariant:
    """A variant with its figures on every axis.

    `round_medians_s` has shape (rounds,), NaN where it was not timed; the mean of `right`, shape
    (images,), is its accuracy. Variants of one ranking share both shapes.
    """

    name: str
    size_bytes: int
    latency_s: float
    round_medians_s: NDArray[np.float64]
    right: NDArray[np.float64]


def default_objectives(batch_size: int, *, trained: bool) -> tuple[Objective, ...]:
    """Return the axes a ranking uses: size, latency at `batch_size`, and accuracy or agreement."""
    return (
        Objective("size_bytes", "minimize", "bytes"),
        Objective(f"latency_p50_s_b{batch_size}", "minimize", "s"),
        Objective("top1" if trained else "top1_agreement", "maximize", "share"),
    )


def draw_points(ranked: Sequence[RankedVariant], draws: int, seed: int = SEED) -> NDArray[np.float64]:
    """Bootstrap size, latency and accuracy of ranked variants, shape (draws, variants, 3).

    Sizes are known exactly; rounds and images are resampled jointly for all.
    """
    sizes = np.array([variant.size_bytes for variant in ranked], dtype=np.float64)
    return np.stack(
        [
            np.broadcast_to(sizes, (draws, len(sizes))),
            draw_latency(np.column_stack([variant.round_medians_s for variant in ranked]), draws, seed),
            draw_accuracy(np.stack([variant.right for variant in ranked]), draws, seed + 1),
        ],
        axis=2,
    )


def find_places(
    ranked: Sequence[RankedVariant], objectives: Sequence[Objective], draws: int
) -> tuple[Place, ...]:
    """Rank the variants of one model, with the share of `draws` in which each is on the frontier."""
    if not ranked:
        return ()
    points = np.array([[variant.size_bytes, variant.latency_s, variant.right.mean()] for variant in ranked])
    probability = frontier_probability(draw_points(ranked, draws), objectives)
    best, dominators = on_frontier(points, objectives), dominated_by(points, objectives)
    return tuple(
        Place(bool(best[i]), float(probability[i]), tuple(ranked[int(j)].name for j in dominators[i]))
        for i in range(len(ranked))
    )
