"""The splits of a data set: seeded, stratified, and disjoint where the protocol asks for it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.errors import DataError, SettingsError

Indices = NDArray[np.int64]

# `search` gets at most one training image in 25 (4 %).
SEARCH_DIVISOR = 25
# Without training images, `calibrate` gets at most one test image in 10.
CALIBRATE_DIVISOR = 10
_LEAST_TEST_IMAGES = 4


@dataclass(frozen=True)
class Splits:
    """Indices into all images. `calibrate` is in random order and part of `train`; the rest is sorted.

    Where there are no training images, `train` is empty and `calibrate` comes from the test images, like
    `search`; neither shares an image with `report`.
    """

    train: Indices
    calibrate: Indices
    search: Indices
    report: Indices


def split(
    labels: Indices,
    train_count: int,
    *,
    seed: int,
    train_subset: int | None = None,
    test_subset: int | None = None,
    calibration_images: int = 256,
) -> Splits:
    """Split images whose first `train_count` are training images and the others test images.

    `labels` is int64 of shape (N,). `train_subset` and `test_subset` are balanced: every class has as
    many images as any other, or all it has. `train_subset` counts the training images before
    `search` is taken from them. `search` is stratified; see `search_size`. `calibrate` is balanced
    and has `calibration_images`, or all training images where there are fewer. Each split has a
    random stream of its own, so that changing one leaves the others; a smaller subset of the same
    seed is part of a larger one.

    Raises SettingsError for a subset or a seed outside its range, DataError for fewer than two
    training images or no test image. With no training image at all, the test images are divided; there
    must be 4 of them.
    """
    test_count = len(labels) - train_count
    if calibration_images < 1:
        raise SettingsError(f"calibration images: {calibration_images}. Allowed: 1 or more.")
    if seed < 0:
        raise SettingsError(f"--seed {seed}. Allowed: 0 or more.")
    streams = [np.random.default_rng(sequence) for sequence in np.random.SeedSequence(seed).spawn(4)]
    if train_count == 0:
        return _divide(labels, streams, train_subset, test_subset, calibration_images)
    if train_count < 2 or test_count < 1:
        raise DataError(
            f"{train_count} training and {test_count} test images; at least 2 and 1 are needed, "
            "since one training image is held out for decisions"
        )
    _check_range("--train-subset", train_subset, 2, train_count)
    _check_range("--test-subset", test_subset, 1, test_count)
    available = draw_balanced(labels, np.arange(train_count), train_subset or train_count, streams[0])
    report = draw_balanced(labels, np.arange(train_count, len(labels)), test_subset or test_count, streams[1])
    search = _draw_search(labels, available, streams[2])
    train = np.setdiff1d(available, search)
    calibrate = draw_balanced(labels, train, min(calibration_images, len(train)), streams[3])
    return Splits(np.sort(train), calibrate, np.sort(search), np.sort(report))


def _divide(
    labels: Indices,
    streams: Sequence[np.random.Generator],
    train_subset: int | None,
    test_subset: int | None,
    calibration_images: int,
) -> Splits:
    """Set apart `calibrate` and `search` from test images alone; see CALIBRATE_DIVISOR and SEARCH_DIVISOR."""
    count = len(labels)
    if count < _LEAST_TEST_IMAGES:
        raise DataError(
            f"{count} test images and no training images; at least {_LEAST_TEST_IMAGES} are needed, "
            "since some are set apart for calibration and for decisions"
        )
    if train_subset is not None:
        raise SettingsError(f"--train-subset {train_subset}: the data set has no training images.")
    everything = np.arange(count, dtype=np.int64)
    calibrate = draw_balanced(
        labels, everything, min(calibration_images, max(1, count // CALIBRATE_DIVISOR)), streams[3]
    )
    left = np.setdiff1d(everything, calibrate)
    search = draw_balanced(labels, left, max(1, count // SEARCH_DIVISOR), streams[2])
    left = np.setdiff1d(left, search)
    _check_range("--test-subset", test_subset, 1, len(left))
    report = draw_balanced(labels, left, test_subset or len(left), streams[1])
    return Splits(everything[:0], calibrate, np.sort(search), np.sort(report))


def search_size(counts: Indices) -> int:
    """Return how many of the training images, `counts` a class, are held out as `search`.

    One in 25, rounded down; but at least one a class, as long as every class keeps one for training,
    and at least one at all. So only a set of fewer than 25 images a class gives more than 4 %.
    """
    spare = int(np.maximum(counts - 1, 0).sum())
    wanted = max(int(counts.sum()) // SEARCH_DIVISOR, int((counts > 0).sum()))
    return max(1, min(wanted, spare))


def draw_balanced(labels: Indices, candidates: Indices, total: int, stream: np.random.Generator) -> Indices:
    """Draw `total` of `candidates`, with as equal a number of each class as there is; random order."""
    counts = np.bincount(labels[candidates], minlength=int(labels.max()) + 1)
    return _draw(labels, candidates, apportion(total, counts, np.ones(len(counts))), stream)


def apportion(total: int, capacity: Indices, weights: NDArray[np.float64]) -> Indices:
    """Divide `total` over the classes by the method of equal proportions (Huntington-Hill).

    A class gets at most its `capacity`, the next one going to the class with the greatest
    weight / sqrt(n (n + 1)), n being what it has. So each class gets one before any gets two, equal
    weights give equal shares, and weights of the class sizes give a stratified draw.
    """
    shares = np.zeros(len(capacity), np.int64)
    if total >= capacity.sum():
        return capacity.astype(np.int64)
    queue = [(-np.inf, -weight, index) for index, weight in enumerate(weights) if capacity[index] > 0]
    heapq.heapify(queue)
    for _ in range(total):
        _, weight, index = heapq.heappop(queue)
        shares[index] += 1
        held = float(shares[index])
        if held < capacity[index]:
            heapq.heappush(queue, (-(weight**2) / (held * (held + 1)), weight, index))
    return shares


def _draw_search(labels: Indices, candidates: Indices, stream: np.random.Generator) -> Indices:
    counts = np.bincount(labels[candidates], minlength=int(labels.max()) + 1)
    spare = np.maximum(counts - 1, 0)
    capacity = spare if spare.any() else counts
    return _draw(labels, candidates, apportion(search_size(counts), capacity, counts.astype(float)), stream)


def _draw(labels: Indices, candidates: Indices, shares: Indices, stream: np.random.Generator) -> Indices:
    """Take the first of each class in one random order, whose prefixes do not depend on the shares."""
    order = stream.permutation(candidates)
    by_class = np.argsort(labels[order], kind="stable")
    counts = np.bincount(labels[order], minlength=len(shares))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = by_class[rank < np.repeat(shares, counts)]
    return order[np.sort(chosen)].astype(np.int64)


def _check_range(option: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise SettingsError(f"{option} {value}. Allowed: {low} to {high}.")
