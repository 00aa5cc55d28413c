"""Comparison: one group of variants in interleaved rounds with an A/A twin, until the order is known."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from quant_explorer.analysis.latency import Timings, collect_timings
from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import WorkerError
from quant_explorer.core.measurement import Block, EnergyBlock, Round, TimingEnd, twin_key
from quant_explorer.core.progress import Task
from quant_explorer.core.study import StudyFile
from quant_explorer.machine import counters
from quant_explorer.machine.conditions import describe_conditions, read_counters
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.timing.contender import Contender
from quant_explorer.pipeline.timing.settling import newly_settled
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.stats.contrasts import plan_passes
from quant_explorer.stats.intervals import Interval
from quant_explorer.stats.rounds import ROUNDS_AFTER_PRECISION

# Blocks of variants between two blocks of the baseline.
_BETWEEN_BASELINES = 2


class LostWorkerError(Exception):
    """The worker of one contender failed, died or hung while it was opened or timed."""

    def __init__(self, contender: Contender, error: WorkerError) -> None:
        super().__init__(str(error))
        self.contender, self.error = contender, error


@dataclass
class _BatchSize:
    """How far the rounds of one batch size are."""

    rounds: list[Round]
    settled: set[str] = field(default_factory=set)
    narrow_at: int | None = None
    stopped_by: str | None = None


class Comparison:
    """One group of variants, each opened afresh in every round."""

    def __init__(
        self,
        baseline: Contender,
        others: Sequence[Contender],
        group: str,
        experiment: Experiment,
        study: StudyFile,
    ) -> None:
        self.baseline, self.group = baseline, group
        self.contenders: Mapping[str, Contender] = {other.digest: other for other in (baseline, *others)}
        self.experiment, self.study = experiment, study
        self.subject, self.protocol = experiment.subject, experiment.protocol
        self.environment = baseline.measurement.environment
        self.twin = twin_key(baseline.digest)
        self.cores = measuring_cores(self.protocol.threads)

    def run_all(self, unfinished: Mapping[int, Sequence[Round]]) -> None:
        """Run rounds at each batch size, after those it has, until it has its reason to stop.

        Raises LostWorkerError when a worker fails; the rounds until then are recorded.
        """
        going = {size: _BatchSize(list(rounds)) for size, rounds in unfinished.items()}
        start = time.monotonic()
        with self.subject.progress.task("rounds", None) as bar:
            while going:
                keys = {key for state in going.values() for key in self._open_keys(state)}
                opening = time.monotonic()
                with self._open_workers(keys, bar) as workers:
                    opening_s = time.monotonic() - opening
                    for size, state in going.items():
                        self._run_round(size, state, workers, opening_s / len(going))
                out_of_time = time.monotonic() - start > self.protocol.time_limit_s
                widths = [self._judge(state, out_of_time=out_of_time) for state in going.values()]
                count = max(len(state.rounds) for state in going.values())
                bar.advance(1, f"round {count}, widest interval +-{max(widths):.1%}")
                for size, state in going.items():
                    if state.stopped_by is not None:
                        self._record_end(size, state)
                going = {size: state for size, state in going.items() if state.stopped_by is None}

    def _open_keys(self, state: _BatchSize) -> set[str]:
        return {*self.contenders, self.twin} - state.settled

    @contextlib.contextmanager
    def _open_workers(self, keys: set[str], bar: Task) -> Iterator[Mapping[str, Worker]]:
        with contextlib.ExitStack() as stack:
            workers: dict[str, Worker] = {}
            # All are started before the first is asked, so that they load their libraries side by side.
            for key in [*self.contenders, self.twin]:
                if key in keys:
                    contender = self.contenders.get(key, self.baseline)
                    with self._blame(key):
                        worker = self.experiment.open_worker(contender.artifact, contender.runtime)
                    workers[key] = stack.enter_context(worker)
            for number, (key, worker) in enumerate(workers.items(), start=1):
                with self._blame(key):
                    worker.open(self.subject.batch(1))
                bar.advance(0, f"opened {number} of {len(keys)}")
            yield workers

    def _judge(self, state: _BatchSize, *, out_of_time: bool) -> float:
        """Decide whether to stop, and return the relative half width of the widest open interval."""
        timings = self._timings(state)
        enough = len(state.rounds) >= self.protocol.rounds
        if enough:
            open_now = [contender for key, contender in self.contenders.items() if key not in state.settled]
            state.settled |= newly_settled(timings, open_now, self.baseline, self.subject)
        width = max((self._width(timings, key) for key in self._open_keys(state)), default=0.0)
        if enough and state.narrow_at is None and width <= self.protocol.precision:
            state.narrow_at = len(state.rounds)
        if state.narrow_at is not None and len(state.rounds) >= state.narrow_at + ROUNDS_AFTER_PRECISION:
            state.stopped_by = "precision"
        elif self.protocol.most_rounds is not None and len(state.rounds) >= self.protocol.most_rounds:
            state.stopped_by = "rounds"
        elif enough and out_of_time:
            state.stopped_by = "time_limit"
        return width

    def _timings(self, state: _BatchSize) -> Timings:
        return collect_timings(state.rounds, self.baseline.digest, self.contenders)

    def _width(self, timings: Timings, key: str) -> float:
        """Return the relative half width of the ratio to the baseline; infinite before there is one."""
        if key in (self.baseline.digest, self.twin):
            return 0.0
        found = timings.compare(key, self.baseline.digest)
        return np.inf if isinstance(found, str) else _relative_width(found[1])

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

    def _run_round(
        self, size: int, state: _BatchSize, workers: Mapping[str, Worker], opening_s: float
    ) -> None:
        """Time every open variant once in each pass, and record the round."""
        number = len(state.rounds)
        rng = np.random.default_rng([self.subject.settings.seed, size, number])
        keys = sorted(self._open_keys(state))
        batch = self.subject.batch(size)
        for key in keys:
            with self._blame(key):
                workers[key].hold(batch)
        pids = [worker.pid for worker in workers.values()]
        before = read_counters(self.cores, pids)
        start = time.monotonic()
        passes = [self._run_pass(keys, workers, rng)]
        pass_s = max(time.monotonic() - start, 1e-6)
        contrasts = self._timings(state).contrasts
        earlier = np.stack([contrasts[key] for key in contrasts if key != self.baseline.digest], axis=2)
        more = plan_passes(earlier, opening_s, pass_s) - 1
        passes += [self._run_pass(keys, workers, rng) for _ in range(more)]
        timing_s = time.monotonic() - start
        conditions = describe_conditions(self.cores, before, read_counters(self.cores, pids))
        energy = self._measure_energy(batch, keys, workers) if size == 1 else {}
        record = Round(
            self.environment, self.group, size, number, tuple(passes), opening_s, timing_s, conditions, energy
        )
        self.study.append(record)
        state.rounds.append(record)

    def _run_pass(
        self, keys: Sequence[str], workers: Mapping[str, Worker], rng: np.random.Generator
    ) -> tuple[Block, ...]:
        return tuple(self._time(key, workers[key]) for key in interleave(keys, self.baseline.digest, rng))

    def _time(self, key: str, worker: Worker) -> Block:
        with self._blame(key):
            return Block(key, worker.time(self.protocol.warmup_calls))

    def _measure_energy(
        self, batch: Batch, keys: Sequence[str], workers: Mapping[str, Worker]
    ) -> dict[str, EnergyBlock]:
        if counters.unavailable(counters.POWERCAP) is not None:
            return {}
        energy: dict[str, EnergyBlock] = {}
        for key in keys:
            with self._blame(key):
                block = workers[key].measure_energy(batch, counters.POWERCAP)
            if block is not None:
                energy[key] = block
        return energy

    @contextlib.contextmanager
    def _blame(self, key: str) -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            raise LostWorkerError(self.contenders.get(key, self.baseline), error) from error


def interleave(keys: Sequence[str], baseline: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Return the order of one pass: all but the baseline shuffled, and it around every second of them."""
    shuffled = [str(key) for key in rng.permutation([key for key in keys if key != baseline])]
    order = [baseline]
    for start in range(0, len(shuffled), _BETWEEN_BASELINES):
        order += [*shuffled[start : start + _BETWEEN_BASELINES], baseline]
    return tuple(order)


def _relative_width(ratio: Interval) -> float:
    return (ratio.high - ratio.low) / (ratio.high + ratio.low)
