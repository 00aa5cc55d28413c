"""Interleaved rounds, with real workers of the fake runtime."""

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
    FileSize,
    PeakMemory,
    Predictions,
    Status,
    twin_key,
)
from quant_explorer.core.recipe import ParameterValue, Recipe, Step
from quant_explorer.core.stats import ROUNDS_AFTER_PRECISION
from quant_explorer.core.study import Record, Study
from quant_explorer.pipeline import timing
from quant_explorer.pipeline.build import build, create_runtime
from quant_explorer.pipeline.measure import open_worker
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.settings import Protocol
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.timing import Contender, group_by_memory, time_variants
from quant_explorer.pipeline.worker import Worker

from .toy_runs import ENVIRONMENT, INT8, PROTOCOL, RUNTIMES, Watching, exploration, fake, toy_subject

SUBJECT = toy_subject()
RIGHT = tuple(SUBJECT.dataset.report.labels.tolist())
WRONG = tuple((label + 1) % 4 for label in RIGHT)
# Ends after so many rounds, for its time is up at once.
THREE_ROUNDS = replace(PROTOCOL, rounds=3)
# So wide that the first look, after 6 rounds, finds it reached.
UNTIL_PRECISE = replace(PROTOCOL, batch_sizes=(1,), rounds=6, precision=0.9999, time_limit_s=600)
pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def contender(
    run: RunFolder, recipe: Recipe, *, top1: tuple[int, ...] = RIGHT, more_bytes: int = 0
) -> Contender:
    """Build a recipe, and say of it what a measurement would have found."""
    runtime = create_runtime(recipe, RUNTIMES)
    artifact = build(recipe, SUBJECT, run, runtime)
    measurement = replace(
        exploration(run, subject=SUBJECT)._blank(recipe),
        files=(*artifact.files, FileSize("more", more_bytes)),
        predictions=Predictions(tuple(range(40)), top1, 40, trained=True),
    )
    return Contender(artifact, runtime, measurement)


def timed(
    run: RunFolder,
    contenders: Sequence[Contender],
    protocol: Protocol = THREE_ROUNDS,
    subject: Subject = SUBJECT,
) -> tuple[Study, tuple[str, ...]]:
    study = Study.load(run.study)
    problems = time_variants(contenders[0], contenders[1:], subject, run, study, protocol)
    assert Study.load(run.study).records == study.records
    return study, problems


def fp32(run: RunFolder) -> Contender:
    return contender(run, fake("fp32_baseline"))


def int8(run: RunFolder, *steps: Step, **options: ParameterValue) -> Contender:
    return contender(run, fake("int8", *(steps or (INT8,)), **options))


def test_each_round_times_everything_and_the_twin_once(run: RunFolder) -> None:
    both = [fp32(run), int8(run)]
    study, problems = timed(run, both)
    assert problems == ()
    keys = {both[0].digest, both[1].digest, twin_key(both[0].digest)}
    for size in (1, 4):
        rounds = study.rounds(ENVIRONMENT.digest, size)
        assert [one.number for one in rounds] == [0, 1, 2]
        assert len({one.group for one in rounds}) == 1
        for one in rounds:
            assert sorted(one.order) == sorted(keys)
            assert set(one.calls_ns) == keys
            assert all(min(calls) > 0 for calls in one.calls_ns.values())
    ends = study.timing_ends(ENVIRONMENT.digest)
    assert [(end.batch_size, end.stopped_by, end.settled) for end in ends] == [
        (1, "time_limit", ()),
        (4, "time_limit", ()),
    ]
    assert {end.baseline for end in ends} == {both[0].digest}


def test_the_order_is_random_and_seeded(run: RunFolder, tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = RunFolder(tmp_path / name)
        both = [fp32(folder), int8(folder)]
        protocol = replace(PROTOCOL, batch_sizes=(1,), rounds=6)
        study, _ = timed(folder, both, protocol, toy_subject(seed=seed))
        names = {both[0].digest: "base", both[1].digest: "int8", twin_key(both[0].digest): "twin"}
        orders.append([[names[key] for key in one.order] for one in study.rounds(ENVIRONMENT.digest, 1)])
    assert len(set(map(tuple, orders[0]))) > 1
    assert orders[0] == orders[1] != orders[2]


def test_the_baseline_alone_is_timed_against_its_twin(run: RunFolder) -> None:
    base = fp32(run)
    study, _ = timed(run, [base], replace(THREE_ROUNDS, batch_sizes=(1,)))
    keys = {base.digest, twin_key(base.digest)}
    assert [set(one.calls_ns) for one in study.rounds(ENVIRONMENT.digest, 1)] == [keys] * 3


def test_a_second_time_nothing_is_timed_and_no_worker_started(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [fp32(run), int8(run)]
    timed(run, both)
    before = run.study.read_bytes()

    def refuse(*_: object) -> Worker:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(timing, "open_worker", refuse)
    assert timed(run, both)[1] == ()
    assert run.study.read_bytes() == before


def test_a_new_variant_is_timed_against_the_baseline_alone(run: RunFolder) -> None:
    base, first, second = fp32(run), int8(run), contender(run, fake("slow", fault="slow"))
    protocol = replace(THREE_ROUNDS, batch_sizes=(1,))
    timed(run, [base, first], protocol)
    study, _ = timed(run, [base, first, second], protocol)
    rounds = study.rounds(ENVIRONMENT.digest, 1)
    assert [one.number for one in rounds] == [0, 1, 2, 0, 1, 2]
    assert set(rounds[3].calls_ns) == {base.digest, twin_key(base.digest), second.digest}


class Killed(BaseException):
    """What a kill does: nothing after it runs."""


@dataclass
class Killing(Study):
    """A study whose process is killed when it has recorded so many."""

    records_left: int = 0

    def append(self, record: Record) -> None:
        if not self.records_left:
            raise Killed
        super().append(record)
        self.records_left -= 1


# In the first batch size, before its end is recorded, and in the second.
@pytest.mark.parametrize("recorded", [1, 3, 6])
def test_a_killed_timing_goes_on_and_repeats_no_round(run: RunFolder, recorded: int) -> None:
    both = [fp32(run), int8(run)]
    killed = Killing(run.study, records_left=recorded)
    with pytest.raises(Killed):
        time_variants(both[0], both[1:], SUBJECT, run, killed, THREE_ROUNDS)
    before = run.study.read_bytes()
    assert len(Study.load(run.study).records) == recorded
    # Half a record, as a kill while writing leaves it.
    with run.study.open("ab") as stream:
        stream.write(b'{"schema_version":1,"kind":"rou')
    study, problems = timed(run, both)
    assert problems == ()
    assert run.study.read_bytes().startswith(before)
    for size in (1, 4):
        numbers = [one.number for one in study.rounds(ENVIRONMENT.digest, size)]
        # Three recorded and the end not: one more shows that time is up.
        assert numbers == list(range(4 if (recorded, size) == (3, 1) else 3))
    assert [end.batch_size for end in study.timing_ends(ENVIRONMENT.digest)] == [1, 4]


def test_precision_ends_it_some_rounds_after_it_was_reached(run: RunFolder) -> None:
    study, _ = timed(run, [fp32(run), int8(run)], UNTIL_PRECISE)
    (end,) = study.timing_ends(ENVIRONMENT.digest)
    assert end.stopped_by == "precision"
    assert len(study.rounds(ENVIRONMENT.digest, 1)) == 6 + ROUNDS_AFTER_PRECISION


def settling(
    run: RunFolder, protocol: Protocol, *, loser_bytes: int = 100, loser_top1: tuple[int, ...] = WRONG
) -> tuple[Study, str]:
    """Time a fast variant against one that is slower, and by default larger and less accurate too."""
    loser = contender(run, fake("slow", fault="slow"), top1=loser_top1, more_bytes=loser_bytes)
    winner = contender(run, fake("fast", fault_after=1), more_bytes=50)
    study, _ = timed(run, [fp32(run), winner, loser], protocol)
    return study, loser.digest


def test_a_variant_that_is_surely_beaten_on_every_axis_stops_being_timed(run: RunFolder) -> None:
    study, loser = settling(run, UNTIL_PRECISE)
    rounds = study.rounds(ENVIRONMENT.digest, 1)
    assert [loser in one.calls_ns for one in rounds] == [True] * 6 + [False] * ROUNDS_AFTER_PRECISION
    assert all(len(one.calls_ns) >= 3 for one in rounds)
    assert study.timing_ends(ENVIRONMENT.digest)[0].settled == (loser,)


@pytest.mark.parametrize(
    ("loser_bytes", "loser_top1"),
    [(0, WRONG), (100, RIGHT), (100, (*WRONG[:2], *RIGHT[2:]))],
    ids=["smaller", "as accurate", "not surely less accurate"],
)
def test_one_axis_left_keeps_it_in(run: RunFolder, loser_bytes: int, loser_top1: tuple[int, ...]) -> None:
    protocol = replace(UNTIL_PRECISE, precision=1e-9, time_limit_s=1e-9)
    study, _ = settling(run, protocol, loser_bytes=loser_bytes, loser_top1=loser_top1)
    assert len(study.rounds(ENVIRONMENT.digest, 1)) == 6
    assert study.timing_ends(ENVIRONMENT.digest)[0].settled == ()


@dataclass(frozen=True)
class Available:
    """What psutil.virtual_memory returns, as far as it is asked."""

    available: int


def of_size(run: RunFolder, config: str, peak_bytes: int) -> Contender:
    one = contender(run, fake(config, fault_after=peak_bytes))
    peaks = (PeakMemory(1, 0, 0, peak_bytes // 2), PeakMemory(4, 0, 0, peak_bytes))
    return replace(one, measurement=replace(one.measurement, memory=peaks))


def test_groups_fit_in_memory_beside_the_baseline_and_its_twin(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, *others = (of_size(run, name, size) for name, size in zip("bxyz", (100, 30, 40, 50), strict=True))

    def groups(available: int) -> list[list[str]]:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: Available(available))
        found = group_by_memory(base, others)
        return [[one.measurement.variant.config for one in group] for group in found]

    # 0.7 of what is available holds twice 100 for the baseline and its twin, and the group.
    assert groups(10_000) == [["x", "y", "z"]]
    assert groups(400) == [["x", "y"], ["z"]]
    # What fits nowhere is tried alone.
    assert groups(10) == [["x"], ["y"], ["z"]]
    assert group_by_memory(base, []) == [[]]


def test_memory_that_is_not_known_is_taken_to_be_the_size_of_the_files(run: RunFolder) -> None:
    one = fp32(run)
    assert one.peak_bytes == sum(file.bytes for file in one.measurement.files)


def test_baseline_and_twin_are_in_every_group(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Available(0))
    base, *others = (of_size(run, name, size) for name, size in zip("bxy", (100, 30, 40), strict=True))
    protocol = replace(THREE_ROUNDS, batch_sizes=(1,))
    study, _ = timed(run, [base, *others], protocol)
    rounds = study.rounds(ENVIRONMENT.digest, 1)
    pair = {base.digest, twin_key(base.digest)}
    assert [set(one.calls_ns) - pair for one in rounds] == [{one.digest} for one in others for _ in range(3)]
    assert all(pair <= set(one.calls_ns) for one in rounds)
    assert len({one.group for one in rounds}) == 2
    assert len(study.timing_ends(ENVIRONMENT.digest)) == 2


@dataclass
class Assassin:
    """Kills the worker of one contender when a bar has come so far. Workers are counted as they open."""

    victim: int
    label: str
    done: int
    workers: list[Worker]

    def __call__(self, label: str, done: int, note: str) -> None:
        if (label, done) == (self.label, self.done):
            os.kill(self.workers[self.victim].pid, signal.SIGKILL)
            # Once is enough: the group without it comes the same way.
            self.label = ""


def assassinated(
    run: RunFolder,
    contenders: Sequence[Contender],
    monkeypatch: pytest.MonkeyPatch,
    *,
    victim: int,
    label: str = "time batch 1",
    done: int = 2,
) -> tuple[Study, tuple[str, ...]]:
    """Time contenders (the baseline first, then the others; its twin opens last) and kill one worker."""
    assassin = Assassin(victim, label, done, [])

    def note(artifact: Artifact, runtime: Runtime, folder: RunFolder, protocol: Protocol) -> Worker:
        worker = open_worker(artifact, runtime, folder, protocol)
        assassin.workers.append(worker)
        return worker

    monkeypatch.setattr(timing, "open_worker", note)
    subject = replace(SUBJECT, progress=Watching(assassin))
    return timed(run, contenders, replace(THREE_ROUNDS, batch_sizes=(1,)), subject)


@pytest.mark.parametrize(("label", "done", "kept"), [("time batch 1", 2, 2), ("open workers", 1, 0)])
def test_a_worker_that_dies_is_recorded_and_the_others_are_timed_without_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, label: str, done: int, kept: int
) -> None:
    base, dies, lives = fp32(run), int8(run), contender(run, fake("other", fault_after=1))
    study, problems = assassinated(run, [base, dies, lives], monkeypatch, victim=1, label=label, done=done)
    (problem,) = problems
    assert problem.startswith("timing int8@fake: the worker process died during ")
    assert "signal SIGKILL" in problem
    found = study.measurements(ENVIRONMENT.digest)[dies.digest]
    assert found.status is Status.DIED
    assert (found.reason or "").startswith("while it was timed: the worker process died")
    assert found.files == dies.measurement.files
    grouped = itertools.groupby(study.rounds(ENVIRONMENT.digest, 1), key=lambda one: one.group)
    rounds = [list(group) for _, group in grouped]
    # The rounds until then are kept, and those of the others complete.
    assert [len(group) for group in rounds] == ([kept] if kept else []) + [3]
    assert {lives.digest, base.digest, twin_key(base.digest)} == set(rounds[-1][-1].calls_ns)
    (end,) = study.timing_ends(ENVIRONMENT.digest)
    assert end.group == rounds[-1][0].group


def test_a_variant_that_died_is_tried_again_with_the_baseline(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, dies, lives = fp32(run), int8(run), contender(run, fake("other", fault_after=1))
    study, _ = assassinated(run, [base, dies, lives], monkeypatch, victim=1)
    known = len(study.rounds(ENVIRONMENT.digest, 1))
    study, problems = timed(run, [base, dies, lives], replace(THREE_ROUNDS, batch_sizes=(1,)))
    assert problems == ()
    added = study.rounds(ENVIRONMENT.digest, 1)[known:]
    assert [set(one.calls_ns) for one in added] == [{base.digest, twin_key(base.digest), dies.digest}] * 3


@pytest.mark.parametrize("victim", [0, 2], ids=["baseline", "twin"])
def test_without_the_baseline_there_is_nothing_to_compare_with(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, victim: int
) -> None:
    base, other = fp32(run), int8(run)
    study, problems = assassinated(run, [base, other], monkeypatch, victim=victim)
    (problem,) = problems
    assert problem.startswith("timing fp32_baseline@fake: ")
    assert len(study.rounds(ENVIRONMENT.digest, 1)) == 2
    assert study.timing_ends(ENVIRONMENT.digest) == []
    # Next time it goes on from there.
    study, problems = timed(run, [base, other], replace(THREE_ROUNDS, batch_sizes=(1,)))
    assert problems == ()
    assert [one.number for one in study.rounds(ENVIRONMENT.digest, 1)] == [0, 1, 2]


def test_every_worker_is_ended(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(psutil.Process().children())
    timed(run, [fp32(run), int8(run)], replace(THREE_ROUNDS, batch_sizes=(1,)))
    assassinated(run, [fp32(run), contender(run, fake("x", fault_after=1))], monkeypatch, victim=0)
    assert set(psutil.Process().children()) <= before
