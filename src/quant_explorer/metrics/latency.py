"""Latency of one block of calls: what a worker times in one pass of a round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from quant_explorer.core.contracts import Batch
from quant_explorer.core.settings.groups import MeasurementProtocol

# Short, so that many blocks of all variants share a mode of the machine.
BLOCK_NS = 8_000_000
WARMUP_CALLS = MeasurementProtocol.warmup_calls
# Of warming up: windows of so many calls are compared, and warming up takes at most so long.
_WINDOW_CALLS = 5
_LEVEL_SHARE = 0.99
_LONGEST_WARMUP_NS = 2 * BLOCK_NS


def time_block(
    run: Callable[[Batch], Batch],
    batch: Batch,
    *,
    warmup_calls: int = WARMUP_CALLS,
    block_ns: int = BLOCK_NS,
) -> tuple[int, ...]:
    """Return the duration in nanoseconds of each call of a block that lasts at least `block_ns`.

    Unmeasured calls come first, `warmup_calls` and more until they are level. At least one call is timed,
    however long it is. Garbage collection is off meanwhile, as `timeit` does.
    """
    with _no_garbage_collection():
        _warm_up(run, batch, warmup_calls)
        return _time_calls(run, batch, block_ns, least_calls=1)


def _warm_up(run: Callable[[Batch], Batch], batch: Batch, calls: int) -> None:
    """Call until times are level: no window of calls is faster than the one before by more than 1 %.

    A call that takes a block by itself is repeated no more than once: caches are filled after it.
    """
    if not calls:
        return
    start = time.perf_counter_ns()
    _time_calls(run, batch, 0, least_calls=1)
    if time.perf_counter_ns() - start >= BLOCK_NS:
        return
    before = _time_calls(run, batch, 0, least_calls=max(calls - 1, _WINDOW_CALLS))
    while time.perf_counter_ns() - start < _LONGEST_WARMUP_NS:
        window = _time_calls(run, batch, 0, least_calls=_WINDOW_CALLS)
        if median(window) >= _LEVEL_SHARE * median(before):
            return
        before = window


def _time_calls(
    run: Callable[[Batch], Batch], batch: Batch, least_ns: int, *, least_calls: int
) -> tuple[int, ...]:
    clock = time.perf_counter_ns
    calls: list[int] = []
    end = clock()
    last = end + least_ns
    while len(calls) < least_calls or end < last:
        start = clock()
        run(batch)
        end = clock()
        calls.append(end - start)
    return tuple(calls)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
