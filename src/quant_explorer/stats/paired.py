"""Paired accuracy: which images two variants got right, and whether a loss stays within a margin."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quant_explorer.stats.intervals import CONFIDENCE, Interval, mean_interval

Verdict = Literal["tie", "gain", "loss"]
MarginVerdict = Literal["within the margin", "worse", "not shown"]
_MOST_IMAGES: Final = 10**9


@dataclass(frozen=True)
class PairedAccuracy:
    """An accuracy compared with a reference on the same images.

    `diff_pp` (variant minus reference) and `interval_pp` are in percentage points. `verdict` is "tie"
    whenever the interval holds 0, else the sign of the difference. `gained` and `lost` count the images that
    only the variant, and only the reference, got right.
    """

    diff_pp: float
    interval_pp: Interval
    mcnemar_p: float
    verdict: Verdict
    gained: int = 0
    lost: int = 0


@dataclass(frozen=True)
class NonInferiority:
    """Whether an accuracy is worse than its reference by more than a margin, in percentage points.

    `more_images` is how many images more would settle a verdict of "not shown", at the shares of images that
    differ so far; 0 for the other verdicts, and where none would, the difference being the margin itself.
    """

    margin_pp: float
    verdict: MarginVerdict
    more_images: int = 0


def compare_paired(
    correct: NDArray[np.bool_], reference: NDArray[np.bool_], confidence: float = CONFIDENCE
) -> PairedAccuracy:
    """Compare which images a variant and its reference got right; both of shape (n_images,).

    The interval is Tango's score interval of a paired difference (Stat. Med. 17, 1998): at 0 it agrees
    with McNemar's test without continuity correction. The p-value is McNemar's exact one: a two-sided
    binomial test on the images that only one of the two got right; 1.0 when there are none. The p-value
    is the more conservative of the two, so that a bare gain or loss may have one a little over 0.05.
    Coverage by simulation, 200 to 10,000 images: 94.2 to 96.7 % where at least three discordant images are
    expected, up to 99.9 % where fewer are. The adjusted Wald interval of Bonett and Price (2012) is wider
    than it says for longer: 96.7 to 100 % where ten or fewer are expected.
    Raises ValueError when the arrays are empty, not boolean or of different shapes.
    """
    from scipy.stats import binomtest

    if correct.ndim != 1 or correct.shape != reference.shape or correct.size == 0:
        raise ValueError(f"need two equal, non-empty 1-D arrays, got {correct.shape} and {reference.shape}")
    if correct.dtype != np.bool_ or reference.dtype != np.bool_:
        raise ValueError(f"need boolean arrays, got {correct.dtype} and {reference.dtype}")
    gained = int(np.count_nonzero(correct & ~reference))
    lost = int(np.count_nonzero(~correct & reference))
    difference = (gained - lost) / correct.size
    share = paired_interval(gained, lost, correct.size, confidence)
    discordant = gained + lost
    p_value = float(binomtest(gained, discordant, 0.5).pvalue) if discordant else 1.0
    verdict: Verdict = "tie" if share.contains(0.0) else "gain" if difference > 0 else "loss"
    interval = Interval(100 * share.low, 100 * share.high)
    return PairedAccuracy(100 * difference, interval, p_value, verdict, gained, lost)


def paired_interval(gained: float, lost: float, total: float, confidence: float = CONFIDENCE) -> Interval:
    """Interval of (gained - lost) / total, in [-1, 1]: what Tango's (1998) score test does not reject.

    The counts need not be whole: those of a larger sample with the same shares serve to plan it.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    critical = float(norm.ppf((1 + confidence) / 2))
    observed = (gained - lost) / total

    def score(difference: float) -> float:
        linear = (2 * total - gained + lost) * difference - gained - lost
        constant = -lost * difference * (1 - difference)
        lost_share = (sqrt(max(linear**2 - 8 * total * constant, 0.0)) - linear) / (4 * total)
        variance = max(total * (2 * lost_share + difference * (1 - difference)), 1e-300)
        return (gained - lost - total * difference) / sqrt(variance)

    low = -1.0 if observed == -1.0 else brentq(lambda d: score(d) - critical, -1.0, observed)
    high = 1.0 if observed == 1.0 else brentq(lambda d: score(d) + critical, observed, 1.0)
    return Interval(float(low), float(high))


def judge_margin(
    gained: int, lost: int, total: int, margin_pp: float, confidence: float = CONFIDENCE
) -> NonInferiority:
    """Test a paired accuracy for non-inferiority.

    "within the margin" when the interval's bad end (`paired_interval`) loses at most the margin, "worse" when
    its good end loses more, otherwise "not shown". Raises ValueError for a margin that is not positive.
    Source: Tango (Stat. Med. 17, 1998), section 4; Piaggio et al. (JAMA 308, 2012) on reading the interval.
    """
    if not margin_pp > 0:
        raise ValueError(f"a margin must be positive, got {margin_pp}")

    def verdict(images: int) -> MarginVerdict:
        scale = images / total
        interval = paired_interval(gained * scale, lost * scale, images, confidence)
        if 100 * interval.low >= -margin_pp:
            return "within the margin"
        return "worse" if 100 * interval.high < -margin_pp else "not shown"

    found = verdict(total)
    if found != "not shown":
        return NonInferiority(margin_pp, found)
    low, high = total, 2 * total
    while verdict(high) == "not shown":
        low, high = high, 2 * high
        if high > _MOST_IMAGES:
            return NonInferiority(margin_pp, found)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if verdict(middle) == "not shown" else (low, middle)
    return NonInferiority(margin_pp, found, high - total)


def mean_of_changes(changes: NDArray[np.float64]) -> tuple[float, Interval]:
    """Mean of small whole changes an image (-2 to 2), shape (n_images,), and its 95 % interval.

    One image that gained and one that lost are added before Student's t is applied, as Bonett and Price
    (Br. J. Math. Stat. Psychol. 65, 2012) do for paired proportions, so that a handful of changes, or none,
    does not come out as certainty. Raises ValueError for an empty array.
    """
    if changes.ndim != 1 or changes.size == 0:
        raise ValueError(f"need a non-empty 1-D array, got shape {changes.shape}")
    _, interval = mean_interval(np.concatenate([changes, [1.0, -1.0]]))
    point = float(changes.mean())
    return point, Interval(min(interval.low, point), max(interval.high, point))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust p-values for being many, in the order given; compare the result with the level as usual.

    Raises ValueError for anything but a 1-D array of values in [0, 1].
    Source: Holm (1979), Scand. J. Stat. 6(2), the step-down procedure.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1 or not np.all((raw >= 0) & (raw <= 1)):
        raise ValueError(f"p-values must be a 1-D array of values in [0, 1], got {p_values!r}")
    order = np.argsort(raw, kind="stable")
    hypotheses_left = np.arange(raw.size, 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * hypotheses_left), 1.0)
    return adjusted
