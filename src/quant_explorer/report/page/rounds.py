"""The rounds as the page's script needs them, to compare any two variants as `Timings.compare` does."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.latency import Timings
from quant_explorer.report.page.content import Figure, MedianEnds, Rounds
from quant_explorer.stats.intervals import FEWEST_FOR_QUOTIENT, median_interval

FEWEST = 2
SPREAD = (0.05, 0.25, 0.5, 0.75, 0.95)


def encode_rounds(timings: Timings, batch: int, digests: Sequence[str]) -> Rounds:
    """Return the rounds of one batch size; row i is the variant `digests[i]`."""
    contrasts = np.stack([timings.contrasts[digest] for digest in digests])
    return Rounds(
        batch=batch,
        rounds=contrasts.shape[1],
        passes=contrasts.shape[2],
        baseline_ms=encode(timings.baseline_s * 1e3),
        contrasts=encode(contrasts),
        through_baseline=dict(_compare_through_baseline(timings, digests)),
    )


def median_ends(most: int) -> MedianEnds:
    """Return where `median_interval` ends for 2 to `most` rounds.

    Its ends are interpolated linearly between order statistics, so that those of 1, 2, ..., n are positions.
    With few rounds they are a factor of the standard deviation of the logarithms.
    """
    position: dict[str, float] = {}
    factor: dict[str, float] = {}
    for count in range(FEWEST, most + 1):
        ranks = np.arange(1, count + 1, dtype=np.float64)
        if count < FEWEST_FOR_QUOTIENT:
            point, interval = median_interval(np.exp(ranks))
            factor[str(count)] = float(np.log(interval.high / point) / ranks.std(ddof=1))
        else:
            position[str(count)] = median_interval(ranks)[1].low
    return MedianEnds(position, factor)


def spread_of_calls(calls_s: Sequence[NDArray[np.float64]]) -> tuple[float, ...]:
    """Return the percentiles of `SPREAD` in milliseconds, each round with the same weight."""
    if not calls_s:
        return ()
    weights = np.concatenate([np.full(len(calls), 1 / len(calls)) for calls in calls_s])
    calls = np.concatenate(calls_s) * 1e3
    found = np.quantile(calls, SPREAD, weights=weights, method="inverted_cdf")
    return tuple(float(value) for value in found)


def _compare_through_baseline(timings: Timings, digests: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Compare what shares no round, the faster with the slower.

    Where their intervals against the baseline lie apart there is nothing to settle.
    """
    ratios = {digest: _ratios(timings, digest) for digest in digests}
    timed = {digest: some[np.isfinite(some)] for digest, some in ratios.items()}
    against = {
        digest: median_interval(some) for digest, some in timed.items() if len(some) >= FEWEST_FOR_QUOTIENT
    }
    fastest_first = sorted(against, key=lambda digest: -against[digest][0])
    for faster, slower in combinations(fastest_first, 2):
        is_apart = against[slower][1].high < against[faster][1].low
        if is_apart or np.isfinite(ratios[faster] + ratios[slower]).any():
            continue
        found = timings.compare(faster, slower)
        if not isinstance(found, str):
            key = f"{digests.index(faster)},{digests.index(slower)}"
            yield key, Figure(found[0], found[1].low, found[1].high)


def _ratios(timings: Timings, digest: str) -> NDArray[np.float64]:
    return np.exp(-timings.log_ratios(digest, timings.baseline))


def encode(values: NDArray[np.floating]) -> str:
    """Return an array as the script decodes it: little-endian 32-bit floats in Base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()
