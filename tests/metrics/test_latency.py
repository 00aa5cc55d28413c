"""Blocks of calls on a clock that the test turns."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from quant_explorer.core.contracts import Batch
from quant_explorer.metrics.latency import BLOCK_NS, time_block

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


def test_a_block_lasts_until_8_ms_are_full(turned: Callable[..., Turned]) -> None:
    clock = turned(3 * MS)
    assert time_block(clock.run, BATCH) == (3 * MS,) * 3


def test_a_block_ends_with_the_call_that_fills_it_exactly(turned: Callable[..., Turned]) -> None:
    assert time_block(turned(4 * MS).run, BATCH) == (4 * MS,) * 2


def test_each_call_keeps_its_own_time(turned: Callable[..., Turned]) -> None:
    clock = turned(5, 300, 17, 60)
    assert time_block(clock.run, BATCH, warmup_calls=0, block_ns=323) == (5, 300, 17, 60)


def test_calls_are_warmed_up_until_they_are_level(turned: Callable[..., Turned]) -> None:
    """Times fall by a tenth from call to call, down to a level that all measured calls have."""
    falling = [int(MS * (0.02 + 0.1 * 0.9**number)) for number in range(60)]
    calls = time_block(turned(*falling, 20_000).run, BATCH)
    assert max(calls) < 1.05 * min(calls)
    # Three calls would leave the first measured one four times as long as the last.
    unlevel = time_block(turned(*falling, 20_000).run, BATCH, warmup_calls=0)
    assert max(unlevel) > 4 * min(unlevel)


def test_warming_up_ends_where_times_never_level(turned: Callable[..., Turned]) -> None:
    clock = turned(*(int(MS * 0.98**number) for number in range(2_000)))
    calls = time_block(clock.run, BATCH)
    unmeasured_ns = clock.now_ns - 1_000 - sum(calls)
    assert unmeasured_ns < 3 * BLOCK_NS


@pytest.mark.parametrize("block_ns", [BLOCK_NS, 1, 0])
def test_a_long_call_is_warmed_up_and_timed_once(turned: Callable[..., Turned], block_ns: int) -> None:
    clock = turned(900 * MS, 4_000 * MS)
    assert time_block(clock.run, BATCH, block_ns=block_ns) == (4_000 * MS,)
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
    assert clock.collecting == [False, False]


def test_garbage_collection_is_restored_after_an_error(turned: Callable[..., Turned]) -> None:
    clock = turned(20 * MS)

    def fail(batch: Batch) -> Batch:
        if clock.calls == 1:
            raise ZeroDivisionError
        return clock.run(batch)

    with pytest.raises(ZeroDivisionError):
        time_block(fail, BATCH)
    assert clock.collecting == [False]
    assert gc.isenabled()


def test_on_the_real_clock() -> None:
    calls = time_block(lambda batch: batch, BATCH, block_ns=MS)
    assert len(calls) >= 1
    assert all(isinstance(call, int) and call >= 0 for call in calls)
