"""Latency of one block of calls: what a worker times in one round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from quant_explorer.core.contracts import Batch
from quant_explorer.core.settings import MeasurementProtocol

WARMUP_CALLS = MeasurementProtocol.warmup_calls
MIN_BLOCK_NS = 50_000_000


def time_block(
    run: Callable[[Batch], Batch],
    batch: Batch,
    *,
    warmup_calls: int = WARMUP_CALLS,
    min_block_ns: int = MIN_BLOCK_NS,
) -> tuple[int, ...]:
    """Return the duration in nanoseconds of each call of a block that lasts at least `min_block_ns`.

    `warmup_calls` unmeasured calls come first. At least one call is timed, however long it is. Garbage
    collection is off inside the block, as `timeit` does.
    """
    for _ in range(warmup_calls):
        run(batch)
    clock = time.perf_counter_ns
    calls: list[int] = []
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        end = clock()
        last = end + min_block_ns
        while not calls or end < last:
            start = clock()
            run(batch)
            end = clock()
            calls.append(end - start)
    finally:
        if was_enabled:
            gc.enable()
    return tuple(calls)
