"""Blocks of calls on a clock that the test turns."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from quant_explorer.core.contracts import Batch
from quant_explorer.metrics.latency import MIN_BLOCK_NS, WARMUP_CALLS, time_block

BATCH = np.zeros((1, 3, 2, 2), np.float32)
MS = 1_000_000


@dataclass
class Turned:
    """A clock, and a session whose calls last `durations_ns`, the last one for ever."""

    durations_ns: list[int]
    now_ns: int = 1_000
    calls: int = 0
    collecting: list[bool] = field(default_factory=list)

    def run(self, batch: Batch) -> Batch:
        assert batch is BATCH
        self.now_ns += self.durations_ns[min(self.calls, len(self.durations_ns) - 1)]
        self.calls += 1
        self.collecting.append(gc.isenabled())
        return batch


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Turned]:
    def make(*durations_ns: int) -> Turned:
        clock = Turned(list(durations_ns))
        monkeypatch.setattr(time, "perf_counter_ns", lambda: clock.now_ns)
        return clock

    return make


def test_protocol() -> None:
    """Three unmeasured calls, then at least 50 ms."""
    assert (WARMUP_CALLS, MIN_BLOCK_NS) == (3, 50 * MS)


def test_a_block_lasts_until_50_ms_are_full(turned: Callable[..., Turned]) -> None:
    clock = turned(7 * MS)
    assert time_block(clock.run, BATCH) == (7 * MS,) * 8
    assert clock.calls == 3 + 8


def test_a_block_ends_with_the_call_that_fills_it_exactly(turned: Callable[..., Turned]) -> None:
    assert time_block(turned(10 * MS).run, BATCH) == (10 * MS,) * 5


def test_warm_up_is_not_measured(turned: Callable[..., Turned]) -> None:
    """Were the first calls measured, or did they count for the block, it would be shorter or slower."""
    clock = turned(900 * MS, 800 * MS, 700 * MS, 20 * MS, 21 * MS, 22 * MS)
    assert time_block(clock.run, BATCH) == (20 * MS, 21 * MS, 22 * MS)


def test_each_call_keeps_its_own_time(turned: Callable[..., Turned]) -> None:
    clock = turned(1, 1, 1, 5, 300, 17, 60)
    assert time_block(clock.run, BATCH, min_block_ns=323) == (5, 300, 17, 60)


@pytest.mark.parametrize("min_block_ns", [50 * MS, 1, 0])
def test_a_long_call_is_timed_once(turned: Callable[..., Turned], min_block_ns: int) -> None:
    clock = turned(4_000 * MS)
    assert time_block(clock.run, BATCH, warmup_calls=1, min_block_ns=min_block_ns) == (4_000 * MS,)
    assert clock.calls == 2


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_inside_and_as_before_after(
    turned: Callable[..., Turned], enabled: bool
) -> None:
    clock = turned(20 * MS)
    (gc.enable if enabled else gc.disable)()
    try:
        time_block(clock.run, BATCH)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert clock.collecting == [enabled] * 3 + [False] * 3


def test_garbage_collection_is_restored_after_an_error(turned: Callable[..., Turned]) -> None:
    clock = turned(20 * MS)

    def fail(batch: Batch) -> Batch:
        if clock.calls == 4:
            raise ZeroDivisionError
        return clock.run(batch)

    with pytest.raises(ZeroDivisionError):
        time_block(fail, BATCH)
    assert clock.collecting == [True] * 3 + [False]
    assert gc.isenabled()


def test_on_the_real_clock() -> None:
    calls = time_block(lambda batch: batch, BATCH, min_block_ns=MS)
    assert len(calls) >= 1
    assert all(isinstance(call, int) and call >= 0 for call in calls)
