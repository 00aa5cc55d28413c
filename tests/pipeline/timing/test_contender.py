"""Groups that fit in memory, and workers that die while they are timed."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.measurement import (
    PeakMemory,
    Status,
    twin_key,
)
from quant_explorer.core.study import StudyFile
from quant_explorer.machine.process import describe_exit
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.timing import contender as contender_module
from quant_explorer.pipeline.timing.contender import Contender, group_by_memory, workers_that_fit
from quant_explorer.pipeline.worker.process import Worker
from tests.pipeline.timing.contenders import (
    STEADY,
    SUBJECT,
    THREE_ROUNDS,
    contender,
    fp32,
    int8,
    timed,
    without_processes,
)
from tests.pipeline.toy_runs import ENVIRONMENT, PROTOCOL, Watching, fake

pytestmark = pytest.mark.slow
# Every round starts a process a variant.
TWO_ROUNDS = replace(PROTOCOL, batch_sizes=(1,))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def of_size(run: RunFolder, config: str, peak_bytes: int) -> Contender:
    timed = contender(run, fake(config, fault_after=peak_bytes))
    peaks = (PeakMemory(1, 0, 0, peak_bytes // 2), PeakMemory(4, 0, 0, peak_bytes))
    return replace(timed, measurement=replace(timed.measurement, memory=peaks))


def test_groups_fit_in_memory_beside_the_baseline_and_its_twin(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, *others = (of_size(run, name, size) for name, size in zip("bxyz", (100, 30, 40, 50), strict=True))

    def groups(available: int) -> list[list[str]]:
        monkeypatch.setattr(contender_module, "available_bytes", lambda: available)
        found = group_by_memory(base, others)
        return [[timed.measurement.variant.config for timed in group] for group in found]

    # 0.7 of what is available holds twice 100 for the baseline and its twin, and the group.
    assert groups(10_000) == [["x", "y", "z"]]
    assert groups(400) == [["x", "y"], ["z"]]
    # What fits nowhere is tried alone.
    assert groups(10) == [["x"], ["y"], ["z"]]
    assert group_by_memory(base, []) == [[]]


def test_helpers_fit_in_memory(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contender_module, "available_bytes", lambda: 1_000)
    assert [workers_that_fit(of_size(run, "x", size)) for size in (100, 350, 351, 701)] == [7, 2, 1, 0]


def test_memory_that_is_not_known_is_taken_to_be_the_size_of_the_files(run: RunFolder) -> None:
    timed = fp32(run)
    assert timed.peak_bytes == sum(file.bytes for file in timed.measurement.files)


def test_baseline_and_twin_are_in_every_group(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contender_module, "available_bytes", lambda: 0)
    without_processes(monkeypatch, dict.fromkeys("bxy", STEADY))
    base, *others = (of_size(run, name, size) for name, size in zip("bxy", (100, 30, 40), strict=True))
    protocol = replace(THREE_ROUNDS, batch_sizes=(1,))
    study, _ = timed(run, [base, *others], protocol)
    rounds = study.rounds(ENVIRONMENT.digest, 1)
    pair = {base.digest, twin_key(base.digest)}
    assert [set(round_.keys) - pair for round_ in rounds] == [
        {other.digest} for other in others for _ in range(3)
    ]
    assert all(pair <= set(round_.keys) for round_ in rounds)
    assert len({round_.group for round_ in rounds}) == 2
    assert len(study.timing_ends(ENVIRONMENT.digest)) == 2


@dataclass
class Assassin:
    """Kills one worker: as it is opened, or when all of a round are open and so many rounds are done.

    `victim` counts the baseline first, then the others; the twin is last.
    """

    victim: int
    rounds: int | None
    workers: list[Worker]
    struck: bool = False

    def watch(self, worker: Worker) -> None:
        """See a worker that was started."""
        self.workers.append(worker)
        if self.rounds is None and len(self.workers) == self.victim + 1:
            self._strike(worker)

    def __call__(self, label: str, done: int, note: str) -> None:
        """See a bar move."""
        words = note.split()
        if (done, words[0]) == (self.rounds, "opened") and words[1] == words[3]:
            self._strike(self.workers[len(self.workers) - int(words[3]) + self.victim])

    def _strike(self, worker: Worker) -> None:
        # Once is enough: the group without it comes the same way.
        if not self.struck:
            os.kill(worker.pid, signal.SIGKILL)
        self.struck = True


def assassinated(
    run: RunFolder,
    contenders: Sequence[Contender],
    monkeypatch: pytest.MonkeyPatch,
    *,
    victim: int,
    rounds: int | None = 1,
) -> tuple[StudyFile, tuple[str, ...]]:
    """Time contenders while an assassin is about."""
    assassin = Assassin(victim, rounds, [])

    open_worker = Experiment.open_worker

    def watched(self: Experiment, artifact: Artifact, runtime: Runtime) -> Worker:
        worker = open_worker(self, artifact, runtime)
        assassin.watch(worker)
        return worker

    monkeypatch.setattr(Experiment, "open_worker", watched)
    subject = replace(SUBJECT, progress=Watching(assassin))
    found = timed(run, contenders, TWO_ROUNDS, subject)
    assert assassin.struck
    return found


@pytest.mark.parametrize(("rounds", "during"), [(1, "Hold"), (None, "Open")])
def test_a_worker_that_dies_is_recorded_and_the_others_are_timed_without_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, rounds: int | None, during: str
) -> None:
    base, dies, lives = fp32(run), int8(run), contender(run, fake("other", fault_after=1))
    study, problems = assassinated(run, [base, dies, lives], monkeypatch, victim=1, rounds=rounds)
    died = f"the worker process died during {during} ({describe_exit(-signal.SIGKILL)})"
    assert problems == (f"timing int8@fake: {died}",)
    found = study.measurements(ENVIRONMENT.digest)[dies.digest]
    assert found.status is Status.DIED
    assert found.reason == f"while it was timed: {died}"
    assert found.files == dies.measurement.files
    grouped = itertools.groupby(study.rounds(ENVIRONMENT.digest, 1), key=lambda round_: round_.group)
    groups = [list(group) for _, group in grouped]
    # The rounds until then are kept, and those of the others complete.
    assert [len(group) for group in groups] == ([rounds] if rounds else []) + [2]
    assert {lives.digest, base.digest, twin_key(base.digest)} == set(groups[-1][-1].keys)
    (end,) = study.timing_ends(ENVIRONMENT.digest)
    assert end.group == groups[-1][0].group


def test_a_variant_that_died_is_tried_again_with_the_baseline(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, dies, lives = fp32(run), int8(run), contender(run, fake("other", fault_after=1))
    study, _ = assassinated(run, [base, dies, lives], monkeypatch, victim=1, rounds=None)
    known = len(study.rounds(ENVIRONMENT.digest, 1))
    without_processes(monkeypatch, dict.fromkeys(("fp32_baseline", "int8"), STEADY))
    study, problems = timed(run, [base, dies, lives], TWO_ROUNDS)
    assert problems == ()
    added = study.rounds(ENVIRONMENT.digest, 1)[known:]
    assert [set(round_.keys) for round_ in added] == [{base.digest, twin_key(base.digest), dies.digest}] * 2


@pytest.mark.parametrize("victim", [0, 2], ids=["baseline", "twin"])
def test_without_the_baseline_there_is_nothing_to_compare_with(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    base, other = fp32(run), int8(run)
    study, problems = assassinated(run, [base, other], monkeypatch, victim=victim)
    (problem,) = problems
    assert problem.startswith("timing fp32_baseline@fake: ")
    assert len(study.rounds(ENVIRONMENT.digest, 1)) == 1
    assert study.timing_ends(ENVIRONMENT.digest) == []
    # Next time it goes on from there.
    without_processes(monkeypatch, dict.fromkeys(("fp32_baseline", "int8"), STEADY))
    study, problems = timed(run, [base, other], TWO_ROUNDS)
    assert problems == ()
    assert [round_.number for round_ in study.rounds(ENVIRONMENT.digest, 1)] == [0, 1]


def test_every_worker_is_ended(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(psutil.Process().children())
    timed(run, [fp32(run), int8(run)], TWO_ROUNDS)
    assassinated(run, [fp32(run), contender(run, fake("x", fault_after=1))], monkeypatch, victim=0)
    assert set(psutil.Process().children()) <= before
