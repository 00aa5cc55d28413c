"""Predictions of an opened artifact over the report split, from its own outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import WorkerError
from quant_explorer.core.measurement import Predictions
from quant_explorer.metrics.fidelity import sqnr_db


@dataclass(frozen=True)
class Scored:
    """Logits (n, classes) of the images at `positions` (n,) of the report split."""

    positions: NDArray[np.int64]
    logits: Batch


def check_logits(logits: Batch, images: int, classes: int) -> None:
    """Raise WorkerError when outputs are not finite or not (images, classes): they never become a figure."""
    if logits.shape != (images, classes):
        raise WorkerError(f"outputs have shape {logits.shape}, expected {(images, classes)}")
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise WorkerError(f"outputs of {bad} of {images} images are not finite")


def score(
    scored: Scored, labels: NDArray[np.int64], *, trained: bool, reference: Scored | None
) -> Predictions:
    """Reduce logits to what is kept: predicted classes, top-5 hits, and SQNR against `reference`.

    `labels` are those of the whole report split. `reference` is the FP32 baseline's output; images
    that only one of the two saw are left out of the SQNR.
    """
    own = labels[scored.positions]
    k = min(5, scored.logits.shape[1])
    largest = np.argpartition(scored.logits, -k, axis=1)[:, -k:]
    return Predictions(
        positions=tuple(scored.positions.tolist()),
        top1=tuple(scored.logits.argmax(axis=1).tolist()),
        top5_hits=int((largest == own[:, None]).any(axis=1).sum()),
        trained=trained,
        sqnr_db=None if reference is None else _sqnr_db(scored, reference),
    )


def _sqnr_db(scored: Scored, reference: Scored) -> float | None:
    _, mine, theirs = np.intersect1d(scored.positions, reference.positions, return_indices=True)
    return sqnr_db(scored.logits[mine], reference.logits[theirs])


def concatenate(parts: Iterable[Scored]) -> Scored:
    """Join batches of scored images."""
    parts = list(parts)
    return Scored(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.logits for part in parts]),
    )
