"""Artifact -> logits of a split. Cores that measuring leaves idle help, each with a fresh worker."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch
from quant_explorer.core.data.dataset import Images
from quant_explorer.core.progress import Task
from quant_explorer.metrics.accuracy import Scored, check_logits, concatenate
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker.process import Worker

# Too few images say nothing; a variant too slow even for these fails by its time-out.
LEAST_SCORED_IMAGES = 100
# What another worker must save: it imports its runtime first, for up to 5 s.
HELP_PAYS_S = 10.0

Positions = NDArray[np.int64]


def score_split(
    worker: Worker,
    helpers: Sequence[Callable[[], Worker]],
    name: str,
    experiment: Experiment,
    images: Images,
) -> Scored:
    """Return the logits over the images of a split, or over a balanced subset if time does not allow all.

    `worker` has opened the artifact; `helpers` open it elsewhere, and are asked if that pays. Raises
    WorkerError for outputs that are not finite or of a wrong shape.
    """
    subject, protocol = experiment.subject, experiment.protocol
    size = max(protocol.batch_sizes)
    order = balanced_order(images.labels, subject.settings.seed)
    with subject.progress.task(f"score {name}", len(images)) as bar:
        scoring = _Scoring(subject, images, protocol.time_limit_s, deque(_chunks(order, size)), bar)
        # Two tell how long the rest takes: in the first, a runtime may compile for this number of images.
        for _ in range(2):
            scoring.run_chunk(worker)
        wanted = helpers[: max(int(scoring.seconds_left() / HELP_PAYS_S), 0)]
        with ThreadPoolExecutor(max(len(wanted), 1)) as pool:
            helping = [pool.submit(scoring.help, start) for start in wanted]
            scoring.run(worker)
        for future in helping:
            future.result()
    scored = concatenate(scoring.parts)
    by_position = np.argsort(scored.positions)
    return Scored(scored.positions[by_position], scored.logits[by_position])


@dataclass
class _Scoring:
    """The images that are left to score; each worker takes the next chunk when it is free."""

    subject: Subject
    images: Images
    time_limit_s: float
    left: deque[Positions]
    bar: Task
    parts: list[Scored] = field(default_factory=list)
    taken: int = 0
    start: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, worker: Worker) -> None:
        """Score what is left. When it fails, nothing is left for the others either.

        The next images are prepared while the worker computes.
        """
        try:
            with ThreadPoolExecutor(1) as ahead:
                coming = ahead.submit(self._prepare)
                while (prepared := coming.result()) is not None:
                    coming = ahead.submit(self._prepare)
                    self._score(worker, *prepared)
        finally:
            with self.lock:
                self.left.clear()

    def run_chunk(self, worker: Worker) -> None:
        """Score the next chunk, if there is one."""
        prepared = self._prepare()
        if prepared is not None:
            self._score(worker, *prepared)

    def _prepare(self) -> tuple[Positions, Batch] | None:
        positions = self._take()
        if positions is None:
            return None
        return positions, self.subject.prepare(self.images.take(positions))

    def _score(self, worker: Worker, positions: Positions, batch: Batch) -> None:
        logits = worker.run(batch)
        check_logits(logits, len(batch), len(self.subject.dataset.classes))
        with self.lock:
            self.parts.append(Scored(positions, logits))
            self.bar.advance(len(positions))

    def help(self, start_worker: Callable[[], Worker]) -> None:
        """Score what is left with another worker."""
        with start_worker() as worker:
            worker.open(self.subject.batch(1))
            self.run(worker)

    def seconds_left(self) -> float:
        """Return how long one worker would go on, as it went until now, within the time limit."""
        gone = time.monotonic() - self.start
        return min(gone * len(self.left) / len(self.parts), self.time_limit_s - gone)

    def _take(self) -> Positions | None:
        with self.lock:
            out_of_time = time.monotonic() - self.start > self.time_limit_s
            if not self.left or (self.taken >= LEAST_SCORED_IMAGES and out_of_time):
                return None
            positions = self.left.popleft()
            self.taken += len(positions)
            return positions


def balanced_order(labels: NDArray[np.int64], seed: int) -> Positions:
    """Return all positions in a seeded order whose every beginning is balanced over the classes."""
    rng = np.random.default_rng([seed, 1])
    shuffled = rng.permutation(len(labels)).astype(np.int64)
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        rank[own] = np.arange(len(own))
    return shuffled[np.argsort(rank[shuffled], kind="stable")]


def _chunks(order: Positions, size: int) -> Iterator[Positions]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
