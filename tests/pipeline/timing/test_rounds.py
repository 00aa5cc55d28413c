"""The course of the rounds: their order, when they end and for whom. Latencies are given, so all is exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, repeat
from pathlib import Path

import numpy as np
import pytest

from quant_explorer.core.measurement import TimingEnd, twin_key
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.stats.rounds import ROUNDS_AFTER_PRECISION
from tests.pipeline.timing.contenders import (
    RIGHT,
    STEADY,
    WRONG,
    StubWorker,
    contender,
    fp32,
    int8,
    timed,
    without_processes,
)
from tests.pipeline.toy_runs import ENVIRONMENT, fake, toy_subject

UNTIL_PRECISE = MeasurementProtocol(batch_sizes=(1,), rounds=6, precision=0.02, time_limit_s=1e6)
NO_TIME = replace(UNTIL_PRECISE, time_limit_s=1e-9)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def noisy(share: float, seed: int) -> Iterator[int]:
    """Yield a millisecond, more or less."""
    rng = np.random.default_rng(seed)
    while True:
        yield int(1_000_000 * rng.uniform(1 - share, 1 + share))


def end_of(study: StudyFile) -> tuple[int, TimingEnd]:
    (end,) = study.timing_ends(ENVIRONMENT.digest)
    return len(study.rounds(ENVIRONMENT.digest, 1)), end


def test_the_order_is_random_and_seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = RunFolder(tmp_path / name)
        both = [fp32(run), int8(run)]
        without_processes(monkeypatch, {"fp32_baseline": STEADY, "int8": STEADY})
        study, _ = timed(run, both, replace(NO_TIME, rounds=30), toy_subject(seed=seed))
        names = {both[0].digest: "base", both[1].digest: "int8", twin_key(both[0].digest): "twin"}
        rounds = study.rounds(ENVIRONMENT.digest, 1)
        orders.append([tuple(names[block.key] for block in round_.passes[0]) for round_ in rounds])
    # The baseline is on both sides of the other two.
    assert set(orders[0]) == {("base", "int8", "twin", "base"), ("base", "twin", "int8", "base")}
    assert orders[0] == orders[1] != orders[2]


def test_precision_ends_it_some_rounds_after_it_was_reached(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_processes(monkeypatch, {"fp32_baseline": STEADY, "int8": repeat(500_000)})
    count, end = end_of(timed(run, [fp32(run), int8(run)], UNTIL_PRECISE)[0])
    assert (count, end.stopped_by) == (6 + ROUNDS_AFTER_PRECISION, "precision")


def test_no_more_rounds_than_were_allowed(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    without_processes(monkeypatch, {"fp32_baseline": STEADY, "int8": noisy(0.2, seed=0)})
    both = [fp32(run), int8(run)]
    count, end = end_of(timed(run, both, replace(UNTIL_PRECISE, most_rounds=7))[0])
    assert (count, end.stopped_by) == (7, "rounds")


def test_unmeasured_calls_come_before_each_block(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def count(self: StubWorker, warmup_calls: int) -> tuple[int, ...]:
        asked.append(warmup_calls)
        return (1, 1)

    without_processes(monkeypatch, {"fp32_baseline": STEADY, "int8": STEADY})
    monkeypatch.setattr(StubWorker, "time", count)
    timed(run, [fp32(run), int8(run)], replace(NO_TIME, rounds=2, warmup_calls=5))
    assert set(asked) == {5}


def test_what_is_noisy_is_timed_for_longer(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    without_processes(monkeypatch, {"fp32_baseline": STEADY, "int8": noisy(0.2, seed=0)})
    count, end = end_of(timed(run, [fp32(run), int8(run)], UNTIL_PRECISE)[0])
    assert count > 20 + ROUNDS_AFTER_PRECISION
    assert end.stopped_by == "precision"


def test_time_ends_it_but_not_before_the_least_number_of_rounds(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_processes(monkeypatch, {"fp32_baseline": STEADY, "int8": noisy(0.2, seed=0)})
    count, end = end_of(timed(run, [fp32(run), int8(run)], NO_TIME)[0])
    assert (count, end.stopped_by) == (6, "time_limit")


@pytest.mark.parametrize(
    ("first", "stricter"),
    [
        (UNTIL_PRECISE, replace(UNTIL_PRECISE, precision=0.001)),
        (replace(NO_TIME, precision=1e-6), replace(UNTIL_PRECISE, precision=0.5)),
    ],
    ids=["precision", "time limit"],
)
def test_who_asks_for_more_gets_more(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, first: MeasurementProtocol, stricter: MeasurementProtocol
) -> None:
    without_processes(monkeypatch, {"fp32_baseline": STEADY, "int8": noisy(1e-4, seed=0)})
    both = [fp32(run), int8(run)]

    def rounds(protocol: MeasurementProtocol) -> int:
        return len(timed(run, both, protocol)[0].rounds(ENVIRONMENT.digest, 1))

    before = rounds(first)
    assert rounds(first) == before
    after = rounds(stricter)
    assert rounds(stricter) == after > before


def settling(
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    *,
    loser_ns: Iterator[int],
    loser_bytes: int = 100,
    loser_top1: tuple[int, ...] = WRONG,
    winner_top1: tuple[int, ...] = RIGHT,
) -> tuple[StudyFile, str]:
    """Time a fast variant against one that is by default larger and less accurate."""
    winner = contender(run, fake("fast", fault_after=1), more_bytes=50, top1=winner_top1)
    loser = contender(run, fake("slow", fault_after=2), top1=loser_top1, more_bytes=loser_bytes)
    without_processes(monkeypatch, {"fp32_baseline": STEADY, "fast": STEADY, "slow": loser_ns})
    largest = contender(run, fake("fp32_baseline"), more_bytes=200)
    study, _ = timed(run, [largest, winner, loser], UNTIL_PRECISE)
    return study, loser.digest


def test_a_variant_that_is_surely_beaten_on_every_axis_stops_being_timed(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So noisy that it alone would be timed for long.
    study, loser = settling(run, monkeypatch, loser_ns=cycle([1_500_000, 3_000_000]))
    count, end = end_of(study)
    assert (count, end.stopped_by, end.settled) == (6 + ROUNDS_AFTER_PRECISION, "precision", (loser,))
    timed_in = [loser in round_.keys for round_ in study.rounds(ENVIRONMENT.digest, 1)]
    assert timed_in == [True] * 6 + [False] * ROUNDS_AFTER_PRECISION
    assert all(len(round_.keys) >= 3 for round_ in study.rounds(ENVIRONMENT.digest, 1))


@pytest.mark.parametrize("same", [RIGHT, (*WRONG[:20], *RIGHT[20:])], ids=["all", "half"])
def test_a_variant_that_is_right_on_the_same_images_need_not_be_less_accurate(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, same: tuple[int, ...]
) -> None:
    # What is wrong may be so in another way.
    other = tuple(
        predicted if predicted == right else (right + 2) % 4
        for predicted, right in zip(same, RIGHT, strict=True)
    )
    study, loser = settling(run, monkeypatch, loser_ns=repeat(2_000_000), loser_top1=other, winner_top1=same)
    assert end_of(study)[1].settled == (loser,)


@pytest.mark.parametrize(
    ("loser_ns", "loser_bytes", "loser_top1"),
    [
        (1_000_000, 100, WRONG),
        (2_000_000, 0, WRONG),
        (2_000_000, 100, RIGHT[:39]),
        (2_000_000, 100, (*WRONG[:2], *RIGHT[2:])),
    ],
    ids=["as fast", "smaller", "as accurate on some of the images", "not surely less accurate"],
)
def test_one_axis_left_keeps_it_in(
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    loser_ns: int,
    loser_bytes: int,
    loser_top1: tuple[int, ...],
) -> None:
    study, loser = settling(
        run, monkeypatch, loser_ns=repeat(loser_ns), loser_bytes=loser_bytes, loser_top1=loser_top1
    )
    count, end = end_of(study)
    assert (count, end.settled) == (6 + ROUNDS_AFTER_PRECISION, ())
    assert all(loser in round_.keys for round_ in study.rounds(ENVIRONMENT.digest, 1))
