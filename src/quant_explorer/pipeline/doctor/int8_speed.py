"""How fast INT8 is beside FP32 in a runtime on this CPU: a short measurement of one small network.

Whether INT8 pays depends on the library's kernels for this CPU, which no table of instruction sets knows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch, Candidate, Lowering, Runtime
from quant_explorer.core.errors import UnsupportedError, require_supported
from quant_explorer.core.quantspec import Granularity, QuantSpec
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.metrics.latency import WARMUP_CALLS
from quant_explorer.models import load_model
from quant_explorer.pipeline.worker.messages import Loading, Opening
from quant_explorer.pipeline.worker.process import Worker, runtime_path
from quant_explorer.stats.intervals import Interval, median_interval

if TYPE_CHECKING:
    from torch import nn

MODEL = "small_cnn"
IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10
# Of about 8 ms for each precision.
PAIRS_OF_BLOCKS = 60
_CALIBRATION_BATCHES, _CALIBRATION_BATCH_SIZE = 4, 8
_ANSWER_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Int8Speed:
    """What was found of static INT8 in one runtime, at batch 1.

    `speedup` is FP32's duration over INT8's, the median over pairs of blocks; `interval` is its 95 %
    interval over these pairs. `int8_fraction` is the share of multiply-accumulates that ran in INT8.
    `lowering` says which ranges the runtime chose, and what its files need.
    """

    granularity: Granularity
    speedup: float
    interval: Interval
    int8_fraction: float
    lowering: Lowering


def measure_int8_speed(runtime: Runtime, threads: int, folder: Path) -> Int8Speed:
    """Lower the network in FP32 and in static INT8 to `folder`, and time both in fresh, pinned processes.

    Weights are per channel, or per tensor where the runtime has no kernels for those. One process each: what
    differs between processes, some percent, is not in the interval. Raises SettingsError for more threads
    than cores, UnsupportedError with the reason, WorkerError when a process fails, and what the libraries
    of the runtime raise when they cannot lower it.
    """
    require_supported(runtime.unavailable())
    model = load_model(MODEL, weights=None, classes=CLASSES, image_shape=IMAGE_SHAPE, seed=0).module
    candidate, granularity = _int8_candidate(runtime, model)
    loading = Loading(runtime_path(type(runtime)), (), measuring_cores(threads))
    with contextlib.ExitStack() as stack:
        # Started before there is anything to open: they import the runtime while this process lowers.
        workers = [
            stack.enter_context(Worker(loading, log=folder / "log.txt", timeout_s=_ANSWER_TIMEOUT_S))
            for _ in range(2)
        ]
        images = _images()
        for worker, version in zip(workers, (Candidate(model, QuantSpec()), candidate), strict=True):
            files = folder / version.spec.precision
            files.mkdir()
            lowering = runtime.lower(version, images, files)
            worker.assign(Opening(lowering.options, str(files)))
        batch = images[0][:1]
        for worker in workers:
            worker.open(batch)
        fp32_s, int8_s = _time_pairs(workers)
        ratio, interval = median_interval(fp32_s / int8_s)
        executed = workers[1].executed(batch)
    return Int8Speed(granularity, ratio, interval, executed.fraction("int8"), lowering)


def _int8_candidate(runtime: Runtime, model: nn.Module) -> tuple[Candidate, Granularity]:
    reasons = []
    # The finer one first.
    for granularity in sorted(get_args(Granularity)):
        candidate = Candidate(model, QuantSpec("int8", "static", granularity))
        reason = runtime.unsupported(candidate)
        if reason is None:
            return candidate, granularity
        reasons.append(reason)
    raise UnsupportedError("; ".join(dict.fromkeys(reasons)))


def _images() -> list[Batch]:
    rng = np.random.default_rng(0)
    shape = (_CALIBRATION_BATCH_SIZE, *IMAGE_SHAPE)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(_CALIBRATION_BATCHES)]


def _time_pairs(workers: Sequence[Worker]) -> Iterator[NDArray[np.float64]]:
    """Yield the median durations of each worker's blocks, which take turns in which comes first."""
    calls: list[list[tuple[int, ...]]] = [[] for _ in workers]
    for number in range(-1, PAIRS_OF_BLOCKS):
        turns = list(zip(workers, calls, strict=True))
        for worker, kept in turns if number % 2 else reversed(turns):
            block = worker.time(WARMUP_CALLS)
            # Caches fill and clocks rise during the first pair.
            if number >= 0:
                kept.append(block)
    for blocks in calls:
        yield np.array([np.median(block) for block in blocks]) / 1e9
