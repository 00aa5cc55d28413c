"""Intervals, thin over SciPy: of a share, of a mean, of a median over rounds, of a quotient of two medians.

Every interval is a 95 % interval unless another confidence is asked for. `tests/stats/test_coverage.py`
checks by simulation with a known truth that each holds it between 93 and 97 % of the time. SciPy is imported
where it is used: it takes longer to import than most commands take to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log2, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95

FEWEST_FOR_QUOTIENT: Final = 6
"""Rounds of each of two groups below which `quotient_interval` would be too narrow."""

_QUOTIENT_DRAWS: Final = 2000
_QUOTIENT_EXCESS: Final = 0.01


@dataclass(frozen=True)
class Interval:
    """A closed interval; `low` and `high` are in the unit of what it belongs to."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval needs low <= high, got {self.low} and {self.high}")

    def contains(self, value: float) -> bool:
        """Say whether `value` lies in the interval, ends included."""
        return self.low <= value <= self.high

    @property
    def half_width(self) -> float:
        """Half the distance between the ends."""
        return (self.high - self.low) / 2


def wilson(successes: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a proportion, in [0, 1].

    Raises ValueError when `total` is not positive or `successes` is not in [0, total].
    Source: Wilson (1927), J. Am. Stat. Assoc. 22(158); `scipy.stats.binomtest`.
    """
    from scipy.stats import binomtest

    if total <= 0 or not 0 <= successes <= total:
        raise ValueError(f"need 0 <= successes <= total and total > 0, got {successes} of {total}")
    ends = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return Interval(float(ends.low), float(ends.high))


def mean_interval(values: NDArray[np.float64]) -> tuple[float, Interval]:
    """Mean of independent values, shape (n,), and its 95 % interval by Student's t.

    Raises ValueError for fewer than 2 values.
    """
    from scipy.stats import t

    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"need a 1-D array of at least 2 values, got shape {values.shape}")
    mean = float(values.mean())
    error = float(t.ppf((1 + CONFIDENCE) / 2, values.size - 1) * values.std(ddof=1) / sqrt(values.size))
    return mean, Interval(mean - error, mean + error)


def median_interval(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> tuple[float, Interval]:
    """Median of the rounds' values (positive, shape (n_rounds,)) and its interval, of 95 % by default.

    Rounds are the independent unit. The interval lies between order statistics, interpolated:
    Hettmansperger and Sheather (1986), Stat. Probab. Lett. 4(2), as `scipy.stats.mstats.median_cihs`. The
    percentile bootstrap over rounds ends there too, for the bootstrap distribution of a median is binomial
    on the order statistics (Efron 1982, The Jackknife, the Bootstrap..., chapter 10), but it can only end at
    one of few values and needs draws.
    Coverage in 2,000 simulated comparisons with 10, 15, 20 or 40 rounds of lognormal noise of 1 to 10 %,
    5 to 10 % of them slowed 1.5 to 3 times: this interval 93.7 to 96.2 %; percentile bootstrap 91.2 to
    95.6 %, BCa 91.6 to 96.0 %, basic 79.4 to 90.2 %, smoothed 94.6 to 98.0 %, Student's t with the
    Maritz-Jarrett standard error 93.8 to 99.9 %.
    Below 6 rounds no two order statistics enclose a median with 95 %; there the interval is the median +-
    Student's t standard errors of the logarithms, which covers 94.8 to 97.4 % of the same cases. Of another
    confidence it is below 1 - log2(1 - confidence) rounds.
    The median of a machine that drifts is that of this measurement; only ratios carry over to another.
    Raises ValueError for fewer than 2 rounds, and for values that are not positive and finite.
    """
    _require_durations(values)
    point = float(np.median(values))
    ends = _few_rounds if values.size < _fewest_for_order_statistics(confidence) else _order_ends
    low, high = ends(values, confidence)
    # Interpolating between equal values may round to just beyond them.
    return point, Interval(min(low, point), max(high, point))


def quotient_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float, Interval]:
    """Quotient of the medians of two independent sets of rounds, with its 95 % interval.

    Both are positive, of shapes (n_first,) and (n_second,): for instance speed-ups over the same baseline
    that were measured in different rounds. The interval is the percentile bootstrap's, each set resampled by
    itself (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8), calibrated (Loh 1987,
    JASA 82(397)): drawn at a nominal 1 % less, because it covers too much. `tests/stats/test_coverage.py`
    holds it to 93 to 97 %.
    Raises ValueError for values that are not positive and finite, and for fewer than FEWEST_FOR_QUOTIENT
    rounds of either, where it would be too narrow.
    """
    for values in (first, second):
        _require_durations(values)
        if values.size < FEWEST_FOR_QUOTIENT:
            raise ValueError(f"need at least {FEWEST_FOR_QUOTIENT} rounds, got {values.size}")
    drawn = _draw_medians(first.tobytes(), 0) / _draw_medians(second.tobytes(), 1)
    outside = (1 - confidence + _QUOTIENT_EXCESS) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside]).tolist()
    point = float(np.median(first) / np.median(second))
    return point, Interval(min(low, point), max(high, point))


@lru_cache(maxsize=1024)
def _draw_medians(values: bytes, seed: int) -> NDArray[np.float64]:
    """Return medians of resamples; kept, because each of many variants is compared with all others."""
    rounds = np.frombuffer(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(rounds.size, size=(_QUOTIENT_DRAWS, rounds.size))
    return np.asarray(np.median(rounds[drawn], axis=1))


def interval_of_quotient(
    first: float, first_ci: Interval, second: float, second_ci: Interval, comparisons: int = 1
) -> Interval:
    """Interval of first / second, both positive and independent, from a 95 % interval of each.

    Of so many `comparisons` all hold at once: ends are moved apart as for a normal error (Bonferroni).

    The distances of the ends add up as squares on the scale of logarithms: the method of variance estimates
    recovery of Zou and Donner (Stat. Med. 27, 2008), for ratios. Raises ValueError for ends that are not
    positive.
    """
    ends = (first, first_ci.low, first_ci.high, second, second_ci.low, second_ci.high)
    if not min(ends) > 0:
        raise ValueError(f"a quotient needs positive figures, got {ends}")
    point, low_1, high_1, below, low_2, high_2 = np.log(ends).tolist()
    centre = point - below
    tail = (1 - CONFIDENCE) / 2
    wider = NormalDist().inv_cdf(1 - tail / comparisons) / NormalDist().inv_cdf(1 - tail)
    low = centre - wider * sqrt((point - low_1) ** 2 + (high_2 - below) ** 2)
    high = centre + wider * sqrt((high_1 - point) ** 2 + (below - low_2) ** 2)
    return Interval(float(np.exp(low)), float(np.exp(high)))


def _order_ends(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    from scipy.stats.mstats import median_cihs

    low, high = median_cihs(values, alpha=1 - confidence)
    return float(low), float(high)


def _fewest_for_order_statistics(confidence: float) -> int:
    """Below this, a median lies beyond all values with a probability of more than 1 - confidence."""
    return ceil(1 - log2(1 - confidence))


def _few_rounds(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    from scipy.stats import t

    logarithms = np.log(values)
    error = float(t.ppf((1 + confidence) / 2, values.size - 1) * logarithms.std(ddof=1) / sqrt(values.size))
    centre = float(np.median(logarithms))
    return float(np.exp(centre - error)), float(np.exp(centre + error))


def _require_durations(values: NDArray[np.float64]) -> None:
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"need a 1-D array of at least 2 rounds, got shape {values.shape}")
    if not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError("rounds must be positive and finite")
