"""Interleaved rounds, with real workers of the fake runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from quant_explorer.core.measurement import (
    twin_key,
)
from quant_explorer.core.study import Record, Study
from quant_explorer.pipeline import timing
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.settings import Protocol
from quant_explorer.pipeline.timing import time_variants
from quant_explorer.pipeline.worker import Worker

from .contenders import RIGHT, SUBJECT, THREE_ROUNDS, WRONG, contender, fp32, int8, timed
from .toy_runs import ENVIRONMENT, PROTOCOL, fake, toy_subject

# So wide that the first look, after 6 rounds, finds it reached.
UNTIL_PRECISE = replace(PROTOCOL, batch_sizes=(1,), rounds=6, precision=0.9999, time_limit_s=600)
MORE = 2
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few_rounds_after_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round opens every worker afresh; how many follow is tested where it is chosen, in core."""
    monkeypatch.setattr(timing, "ROUNDS_AFTER_PRECISION", MORE)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


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


# Within a round, between rounds, and before the ends are recorded.
@pytest.mark.parametrize("recorded", [1, 4, 6])
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
        # All recorded and the end not: one more shows that time is up.
        assert numbers == list(range(4 if recorded == 6 else 3))
    assert [end.batch_size for end in study.timing_ends(ENVIRONMENT.digest)] == [1, 4]


def test_precision_ends_it_some_rounds_after_it_was_reached(run: RunFolder) -> None:
    study, _ = timed(run, [fp32(run), int8(run)], UNTIL_PRECISE)
    (end,) = study.timing_ends(ENVIRONMENT.digest)
    assert end.stopped_by == "precision"
    assert len(study.rounds(ENVIRONMENT.digest, 1)) == 6 + MORE


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
    assert [loser in one.calls_ns for one in rounds] == [True] * 6 + [False] * MORE
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
