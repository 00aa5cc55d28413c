"""Measure the roofs in this process: whoever calls has pinned it and set its threads.

Bandwidth is that of STREAM's copy: arrays of at least four times the last-level cache, bytes read plus bytes
written, the best of several passes (McCalpin, "Memory bandwidth and machine balance in current high
performance computers", IEEE TCCA Newsletter, 1995). What a cache reads before it writes is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

from quant_explorer.core.cost.roofline import BANDWIDTH
from quant_explorer.core.errors import explain
from quant_explorer.core.quantspec import Precision
from quant_explorer.machine.memory import available_bytes
from quant_explorer.machine.peaks.kernels import KERNELS, Call, Prepare

WHAT = (BANDWIDTH, *KERNELS)
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNKNOWN_CACHE_BYTES = 64_000_000
_TIMES_CACHE = 4


@dataclass(frozen=True)
class Effort:
    """Sides of square matrices, least seconds of repetitions for each, bytes of an array (None: by cache).

    A size whose product would take longer than `longest_call_s`, as the smaller one tells, is left out:
    an emulated precision shows its peak in small ones.
    """

    sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    seconds: float = 0.3
    array_bytes: int | None = None
    longest_call_s: float = 0.5


@dataclass(frozen=True)
class MeasuredRoof:
    """One roof: 10^9 MAC or bytes per second and the kernel that reached it, or None and the reason."""

    what: str
    value: float | None
    kernel: str = ""
    reason: str = ""


def probe(effort: Effort) -> Iterator[MeasuredRoof]:
    """Yield a figure for each of `WHAT`, as it is found."""
    import torch

    with torch.inference_mode():
        yield MeasuredRoof(BANDWIDTH, _copy_gb_per_s(effort), "Tensor.copy_")
        for precision in KERNELS:
            yield _fastest_kernel(precision, effort)


def _copy_gb_per_s(effort: Effort) -> float:
    import torch

    count = max((effort.array_bytes or array_bytes()) // 4, 1)
    source, target = torch.ones(count), torch.zeros(count)
    return 2 * count * 4 / _fastest_s(lambda: target.copy_(source), effort.seconds) / 1e9


def array_bytes(caches: Path = _CACHES) -> int:
    """Return the size of one array: four last-level caches, at most a quarter of free memory."""
    largest = max((_cache_bytes(path) for path in caches.glob("index*/size")), default=_UNKNOWN_CACHE_BYTES)
    return min(_TIMES_CACHE * largest, available_bytes() // 4)


def _cache_bytes(path: Path) -> int:
    """Read a size as Linux writes it: 36608K."""
    units = {"K": 1024, "M": 1024**2, "G": 1024**3}
    text = path.read_text().strip()
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def _fastest_kernel(precision: Precision, effort: Effort) -> MeasuredRoof:
    best, reasons = MeasuredRoof(precision, None), []
    for name, prepare in KERNELS[precision].items():
        try:
            rate = _best_gmacs_per_s(prepare, effort)
        # A kernel that this build or processor lacks says so in one of these ways.
        except (AttributeError, RuntimeError, TypeError) as error:
            reasons.append(f"{name}: {explain(error).splitlines()[0]}")
            continue
        if best.value is None or rate > best.value:
            best = MeasuredRoof(precision, rate, name)
    return best if best.value is not None else MeasuredRoof(precision, None, "", "; ".join(reasons))


def _best_gmacs_per_s(prepare: Prepare, effort: Effort) -> float:
    best = 0.0
    for size in effort.sizes:
        macs = size**3
        if best and macs / best / 1e9 > effort.longest_call_s:
            break
        best = max(best, macs / _fastest_s(prepare(size), effort.seconds) / 1e9)
    return best


def _fastest_s(call: Call, seconds: float) -> float:
    """Return the shortest of at least three calls after one that warms up."""
    call()
    fastest, calls, end = inf, 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
        calls += 1
    return fastest
