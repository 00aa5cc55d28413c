"""Latency of variants against each other: interleaved rounds with an A/A twin, until the order is known."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.errors import WorkerError, explain
from quant_explorer.core.measurement import Measurement, Round, TimingEnd, twin_key
from quant_explorer.core.progress import Task
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.settings import MeasurementProtocol
from quant_explorer.core.stats import (
    ROUNDS_AFTER_PRECISION,
    Interval,
    compare_paired,
    ratio_interval,
    round_medians,
)
from quant_explorer.core.study import Study
from quant_explorer.pipeline.contender import Contender, group_by_memory
from quant_explorer.pipeline.measure import open_worker, status_of
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker import Worker


def time_variants(
    baseline: Contender,
    others: Sequence[Contender],
    subject: Subject,
    run: RunFolder,
    study: Study,
    protocol: MeasurementProtocol,
) -> tuple[str, ...]:
    """Time every contender at every batch size and record each round as it ends.

    Rounds that the study holds are not repeated. A variant whose worker fails is recorded with a status and
    a reason, and the rest of its group is timed without it, as a group of its own; the rounds until then
    are kept. Returns what went wrong, a message each.
    """
    problems: list[str] = []
    pending = [one for one in others if not _is_timed(one.digest, study, baseline, protocol)]
    if not pending and _is_timed(baseline.digest, study, baseline, protocol):
        return ()
    for group in group_by_memory(baseline, pending):
        while True:
            try:
                _Comparison(baseline, group, subject, run, study, protocol).run_all()
                break
            except _LostWorkerError as lost:
                problems.append(f"timing {lost.contender.measurement.variant.name}: {explain(lost.error)}")
                if lost.contender is baseline:
                    return tuple(problems)
                study.append(lost.measurement)
                group = [one for one in group if one is not lost.contender]
                if not group:
                    break
    return tuple(problems)


class _LostWorkerError(Exception):
    """The worker of one contender failed, died or hung while it was opened or timed."""

    def __init__(self, contender: Contender, error: WorkerError) -> None:
        super().__init__(str(error))
        self.contender, self.error = contender, error

    @property
    def measurement(self) -> Measurement:
        reason = f"while it was timed: {explain(self.error)}"
        return replace(self.contender.measurement, status=status_of(self.error), reason=reason)


def _is_timed(digest: str, study: Study, baseline: Contender, protocol: MeasurementProtocol) -> bool:
    environment = baseline.measurement.environment
    ended = _ended(study, baseline, protocol)
    return all(
        any(
            digest in record.calls_ns and (record.group, size) in ended
            for record in study.rounds(environment, size)
        )
        for size in protocol.batch_sizes
    )


def _ended(study: Study, baseline: Contender, protocol: MeasurementProtocol) -> set[tuple[str, int]]:
    """Return the groups and batch sizes whose rounds are as many and as long as the protocol asks for."""
    environment = baseline.measurement.environment
    return {
        (end.group, end.batch_size)
        for end in study.timing_ends(environment)
        if end.baseline == baseline.digest
        and _suffices(end, protocol)
        and len(_rounds_of(end.group, end.batch_size, study, environment)) >= protocol.rounds
    }


def _suffices(end: TimingEnd, protocol: MeasurementProtocol) -> bool:
    """Say whether what ended the rounds then would end them as soon now."""
    if end.stopped_by == "precision":
        return end.precision is None or end.precision <= protocol.precision
    if end.stopped_by == "time_limit":
        return end.time_limit_s is None or end.time_limit_s >= protocol.time_limit_s
    return True


def _rounds_of(group: str, batch_size: int, study: Study, environment: str) -> list[Round]:
    return [one for one in study.rounds(environment, batch_size) if one.group == group]


@dataclass
class _BatchSize:
    """How far the rounds of one batch size are."""

    rounds: list[Round]
    settled: set[str] = field(default_factory=set)
    narrow_at: int | None = None
    stopped_by: str | None = None


class _Comparison:
    """One group of variants, each opened afresh in every round."""

    def __init__(
        self,
        baseline: Contender,
        group: Sequence[Contender],
        subject: Subject,
        run: RunFolder,
        study: Study,
        protocol: MeasurementProtocol,
    ) -> None:
        self.baseline = baseline
        self.contenders: Mapping[str, Contender] = {one.digest: one for one in (baseline, *group)}
        self.subject, self.run, self.study, self.protocol = subject, run, study, protocol
        self.environment = baseline.measurement.environment
        self.group = digest_of({"group": sorted(self.contenders)})
        self.twin = twin_key(baseline.digest)

    def run_all(self) -> None:
        """Run rounds until each batch size has its reason to stop."""
        going = self._unfinished()
        start = time.monotonic()
        with self.subject.progress.task("rounds", None) as bar:
            while going:
                keys = {key for state in going.values() for key in self._open_keys(state)}
                with self._open_workers(keys, bar) as workers:
                    for size, state in going.items():
                        state.rounds.append(self._run_round(size, state, workers))
                out_of_time = time.monotonic() - start > self.protocol.time_limit_s
                widths = [self._judge(state, out_of_time=out_of_time) for state in going.values()]
                count = max(len(state.rounds) for state in going.values())
                bar.advance(1, f"round {count}, widest interval +-{max(widths):.1%}")
                for size, state in going.items():
                    if state.stopped_by is not None:
                        self._record_end(size, state)
                going = {size: state for size, state in going.items() if state.stopped_by is None}

    def _unfinished(self) -> dict[int, _BatchSize]:
        ended = _ended(self.study, self.baseline, self.protocol)
        return {
            size: _BatchSize(_rounds_of(self.group, size, self.study, self.environment))
            for size in self.protocol.batch_sizes
            if (self.group, size) not in ended
        }

    def _open_keys(self, state: _BatchSize) -> set[str]:
        return {*self.contenders, self.twin} - state.settled

    @contextlib.contextmanager
    def _open_workers(self, keys: set[str], bar: Task) -> Iterator[Mapping[str, Worker]]:
        with contextlib.ExitStack() as stack:
            workers: dict[str, Worker] = {}
            # All are started before the first is asked, so that they load their libraries side by side.
            for key in [*self.contenders, self.twin]:
                if key in keys:
                    one = self.contenders.get(key, self.baseline)
                    with self._blame(key):
                        worker = open_worker(one.artifact, one.runtime, self.run, self.protocol)
                    workers[key] = stack.enter_context(worker)
            for number, (key, worker) in enumerate(workers.items(), start=1):
                with self._blame(key):
                    worker.open(self.subject.batch(1))
                bar.advance(0, f"opened {number} of {len(keys)}")
            yield workers

    def _judge(self, state: _BatchSize, *, out_of_time: bool) -> float:
        """Decide whether to stop, and return the relative half width of the widest open interval."""
        ratios = self._ratios(state.rounds)
        enough = len(state.rounds) >= self.protocol.rounds
        if enough:
            state.settled |= self._newly_settled(ratios)
        width = max((_relative_width(ratios[key]) for key in set(ratios) - state.settled), default=0.0)
        if enough and state.narrow_at is None and width <= self.protocol.precision:
            state.narrow_at = len(state.rounds)
        if state.narrow_at is not None and len(state.rounds) >= state.narrow_at + ROUNDS_AFTER_PRECISION:
            state.stopped_by = "precision"
        elif self.protocol.most_rounds is not None and len(state.rounds) >= self.protocol.most_rounds:
            state.stopped_by = "rounds"
        elif enough and out_of_time:
            state.stopped_by = "time_limit"
        return width

    def _record_end(self, size: int, state: _BatchSize) -> None:
        assert state.stopped_by is not None
        self.study.append(
            TimingEnd(
                environment=self.environment,
                group=self.group,
                batch_size=size,
                baseline=self.baseline.digest,
                stopped_by=state.stopped_by,
                settled=tuple(sorted(state.settled)),
                precision=self.protocol.precision,
                time_limit_s=self.protocol.time_limit_s,
            )
        )

    def _run_round(self, size: int, state: _BatchSize, workers: Mapping[str, Worker]) -> Round:
        number = len(state.rounds)
        rng = np.random.default_rng([self.subject.settings.seed, size, number])
        order = tuple(str(key) for key in rng.permutation(sorted(self._open_keys(state))))
        batch = self.subject.batch(size)
        for key in order:
            with self._blame(key):
                workers[key].hold(batch)
        calls: dict[str, tuple[int, ...]] = {}
        for key in order:
            with self._blame(key):
                calls[key] = workers[key].time(self.protocol.warmup_calls)
        record = Round(self.environment, self.group, size, number, order, calls)
        self.study.append(record)
        return record

    @contextlib.contextmanager
    def _blame(self, key: str) -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            raise _LostWorkerError(self.contenders.get(key, self.baseline), error) from error

    def _ratios(self, rounds: Sequence[Round]) -> dict[str, Interval]:
        intervals = {}
        for key in self.contenders:
            shared = [record for record in rounds if key in record.calls_ns]
            if key == self.baseline.digest or len(shared) < 2:
                continue
            base = round_medians([record.calls_ns[self.baseline.digest] for record in shared])
            own = round_medians([record.calls_ns[key] for record in shared])
            intervals[key] = ratio_interval(base, own)[1]
        return intervals

    def _newly_settled(self, speedups: Mapping[str, Interval]) -> set[str]:
        """Variants that something surely faster, no larger and surely no less accurate dominates."""
        return {
            loser
            for loser in speedups
            for winner in speedups
            if winner != loser
            and speedups[winner].low > speedups[loser].high
            and self.contenders[winner].size_bytes <= self.contenders[loser].size_bytes
            and self._surely_no_less_accurate(self.contenders[winner], self.contenders[loser])
        }

    def _truth(self) -> NDArray[np.int64]:
        """What a variant should have predicted: labels, or without training what the baseline did."""
        truth = self.subject.dataset.report.labels.copy()
        predictions = self.baseline.measurement.predictions
        if predictions is not None and not predictions.trained:
            truth[np.array(predictions.positions)] = predictions.top1
        return truth

    def _surely_no_less_accurate(self, winner: Contender, loser: Contender) -> bool:
        """Right on the very same images, or more accurate beyond the interval of the paired difference."""
        truth = self._truth()
        hits = [_correct(one, truth) for one in (winner, loser)]
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


def _relative_width(ratio: Interval) -> float:
    return (ratio.high - ratio.low) / (ratio.high + ratio.low)
