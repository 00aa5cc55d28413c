"""Resampling: the joint bootstrap of what all variants share, images and rounds."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_DRAWS_AT_ONCE: Final = 256


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


def _require_observed(values: NDArray[np.float64]) -> None:
    if values.ndim != 2 or values.size == 0 or np.any(np.isinf(values)):
        raise ValueError(f"need a 2-D array of finite values or NaN, got shape {values.shape}")
    if np.any(np.all(np.isnan(values), axis=0)):
        raise ValueError("a variant without any observation cannot be resampled")
