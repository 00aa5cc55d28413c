"""Interleaved rounds: what is timed in each, by which processes, and how they go on another time."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.measurement import twin_key
from quant_explorer.core.study import Record, StudyFile
from quant_explorer.machine import counters
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.timing.rounds import time_variants
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.stats.contrasts import FEWEST_PASSES
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
from tests.pipeline.toy_runs import ENVIRONMENT, fake

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only what is recorded matter."""
    without_processes(monkeypatch, dict.fromkeys(("fp32_baseline", "int8", "other"), STEADY))


def test_each_pass_times_everything_and_the_twin_between_blocks_of_the_baseline(run: RunFolder) -> None:
    both = [fp32(run), int8(run)]
    study, problems = timed(run, both)
    assert problems == ()
    keys = {both[0].digest, both[1].digest, twin_key(both[0].digest)}
    for size in (1, 4):
        rounds = study.rounds(ENVIRONMENT.digest, size)
        assert [round_.number for round_ in rounds] == [0, 1, 2]
        assert len({round_.group for round_ in rounds}) == 1
        for round_ in rounds:
            assert len(round_.passes) >= FEWEST_PASSES
            for blocks in round_.passes:
                found = [block.key for block in blocks]
                assert found[0] == found[-1] == both[0].digest
                assert sorted(found) == sorted([*keys, both[0].digest])
                assert all(min(block.calls_ns) > 0 for block in blocks)
    ends = study.timing_ends(ENVIRONMENT.digest)
    assert [(end.batch_size, end.stopped_by, end.settled) for end in ends] == [
        (1, "time_limit", ()),
        (4, "time_limit", ()),
    ]
    assert {end.baseline for end in ends} == {both[0].digest}


@contextlib.contextmanager
def counted_energy(root: Path, step_uj: int) -> Iterator[None]:
    """Show the counter of one CPU package that grows by `step_uj` every 10 ms."""
    package = root / "intel-rapl:0"
    package.mkdir(parents=True)
    (package / "name").write_text("package-0\n")
    (package / "max_energy_range_uj").write_text("1000000000\n")
    (package / "energy_uj").write_text("0\n")
    over = threading.Event()

    def count() -> None:
        for step in itertools.count(1):
            # Replaced whole, as a reader of sysfs never sees half a number.
            fresh = package / "fresh"
            fresh.write_text(f"{step * step_uj}\n")
            fresh.replace(package / "energy_uj")
            if over.wait(0.01):
                return

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("step_uj", [1_000, 0], ids=["moves", "stands still"])
def test_energy_is_measured_in_each_round_where_a_counter_moves(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_uj: int
) -> None:
    monkeypatch.setattr(counters, "POWERCAP", tmp_path / "powercap")
    both = [fp32(run), int8(run)]
    with counted_energy(tmp_path / "powercap", step_uj):
        study, _ = timed(run, both)
    keys = {both[0].digest, both[1].digest, twin_key(both[0].digest)} if step_uj else set()
    assert [set(round_.energy) for round_ in study.rounds(ENVIRONMENT.digest, 1)] == [keys] * 3
    assert not any(round_.energy for round_ in study.rounds(ENVIRONMENT.digest, 4))
    for round_ in study.rounds(ENVIRONMENT.digest, 1):
        assert all(block.calls > 0 and block.energy_j > 0 for block in round_.energy.values())


def test_everything_is_opened_afresh_in_each_round(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    processes: list[int] = []

    open_worker = Experiment.open_worker

    def watched(self: Experiment, artifact: Artifact, runtime: Runtime) -> Worker:
        worker = open_worker(self, artifact, runtime)
        processes.append(worker.pid)
        return worker

    monkeypatch.setattr(Experiment, "open_worker", watched)
    timed(run, [fp32(run), int8(run)])
    # Three rounds of two variants and the twin, each process for both batch sizes.
    assert len(processes) == len(set(processes)) == 9


def test_the_baseline_alone_is_timed_against_its_twin(run: RunFolder, no_processes: None) -> None:
    base = fp32(run)
    study, _ = timed(run, [base], replace(THREE_ROUNDS, batch_sizes=(1,)))
    keys = {base.digest, twin_key(base.digest)}
    assert [set(round_.keys) for round_ in study.rounds(ENVIRONMENT.digest, 1)] == [keys] * 3


def test_a_second_time_nothing_is_timed_and_no_worker_started(
    run: RunFolder, no_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [fp32(run), int8(run)]
    timed(run, both)
    before = run.study.read_bytes()

    def refuse(*_: object) -> Worker:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(Experiment, "open_worker", refuse)
    assert timed(run, both)[1] == ()
    assert run.study.read_bytes() == before


def test_a_new_variant_is_timed_against_the_baseline_alone(run: RunFolder, no_processes: None) -> None:
    base, first, second = fp32(run), int8(run), contender(run, fake("other", fault_after=1))
    protocol = replace(THREE_ROUNDS, batch_sizes=(1,))
    timed(run, [base, first], protocol)
    study, _ = timed(run, [base, first, second], protocol)
    rounds = study.rounds(ENVIRONMENT.digest, 1)
    assert [round_.number for round_ in rounds] == [0, 1, 2, 0, 1, 2]
    assert set(rounds[3].keys) == {base.digest, twin_key(base.digest), second.digest}


def test_when_more_rounds_are_asked_for_the_first_are_kept(run: RunFolder, no_processes: None) -> None:
    both = [fp32(run), int8(run)]
    protocol = replace(THREE_ROUNDS, batch_sizes=(1,))
    timed(run, both, protocol)
    before = run.study.read_bytes()
    study, _ = timed(run, both, replace(protocol, rounds=5))
    assert run.study.read_bytes().startswith(before)
    rounds = study.rounds(ENVIRONMENT.digest, 1)
    assert [round_.number for round_ in rounds] == [0, 1, 2, 3, 4]
    assert len({round_.group for round_ in rounds}) == 1
    # There are more than were asked for now.
    timed(run, both, replace(protocol, rounds=4))
    assert StudyFile.load(run.study).records == study.records


class Killed(BaseException):
    """What a kill does: nothing after it runs."""


@dataclass
class Killing(StudyFile):
    """A study whose process is killed when it has recorded so many."""

    records_left: int = 0

    def append(self, record: Record) -> None:
        if not self.records_left:
            raise Killed
        super().append(record)
        self.records_left -= 1


# Within a round, between rounds, and before the ends are recorded.
@pytest.mark.parametrize("recorded", [2, 5, 7])
def test_a_killed_timing_goes_on_and_repeats_no_round(
    run: RunFolder, no_processes: None, recorded: int
) -> None:
    both = [fp32(run), int8(run)]
    killed = Killing(run.study, records_left=recorded)
    with pytest.raises(Killed):
        time_variants(both[0], both[1:], Experiment(SUBJECT, run, THREE_ROUNDS), killed)
    before = run.study.read_bytes()
    assert len(StudyFile.load(run.study).records) == recorded
    # Half a record, as a kill while writing leaves it.
    with run.study.open("ab") as stream:
        stream.write(b'{"schema_version":1,"kind":"rou')
    study, problems = timed(run, both)
    assert problems == ()
    assert run.study.read_bytes().startswith(before)
    for size in (1, 4):
        numbers = [round_.number for round_ in study.rounds(ENVIRONMENT.digest, size)]
        # All recorded and the end not: one more shows that time is up.
        assert numbers == list(range(4 if recorded == 7 else 3))
    assert [end.batch_size for end in study.timing_ends(ENVIRONMENT.digest)] == [1, 4]
