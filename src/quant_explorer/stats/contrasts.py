"""Contrasts: how long a variant takes beside a reference that was timed near it.

Modes of a machine that switch within seconds are shared only by what is near in time. So each pass over the
variants has blocks of the reference between theirs, a block is compared with the median of those near it, and
a round's figure is the median over its passes: a mode that switches inside a pass spoils that one.
Source: Abedi and Brecht, "Conducting Repeatable Experiments in Highly Variable Cloud Computing Environments",
ICPE 2017 (interleaved trials); `benchmarks/resolution.py` compares this scheme with others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

FEWEST_PASSES, FIRST_PASSES, MOST_PASSES = 2, 6, 16

# Blocks of the reference on each side. More hold less noise, fewer share more of the machine's mode.
NEAR = 4


def log_contrasts(
    keys: Sequence[str], seconds: NDArray[np.float64], reference: str, near: int = NEAR
) -> dict[str, float]:
    """Return log(time / reference's time near it) of each key of one pass; 0 for the reference.

    `seconds` holds what a call took in each block, shape (n_blocks,), `keys` whose it was, in the order in
    which they were timed. The reference near a block is the median of the logs of the `near` blocks before
    and the `near` after it, or of those that there are. Empty for a pass without the reference. Raises
    ValueError for other shapes and for times that are not positive and finite.
    """
    if seconds.shape != (len(keys),) or not np.all(np.isfinite(seconds) & (seconds > 0)):
        raise ValueError(f"need a positive time for each of {len(keys)} blocks, got {seconds!r}")
    logs = np.log(seconds)
    places = np.array([place for place, key in enumerate(keys) if key == reference], dtype=np.int64)
    if not len(places):
        return {}
    around = [
        float(np.median(logs[places[max(gap - near, 0) : gap + near]])) for gap in range(len(places) + 1)
    ]
    found: dict[str, list[float]] = {}
    for key, log, gap in zip(keys, logs.tolist(), np.searchsorted(places, range(len(keys))), strict=True):
        if key != reference:
            found.setdefault(key, []).append(log - around[gap])
    return {reference: 0.0} | {key: float(np.mean(values)) for key, values in found.items()}


def plan_passes(contrasts: NDArray[np.float64], opening_s: float, pass_s: float) -> int:
    """Return how many passes a round should have, for the least variance in a given time.

    `contrasts` are those of earlier rounds, shape (n_rounds, n_passes, n_variants), NaN where there is none;
    `opening_s` is what a round costs before its first pass, `pass_s` what each pass costs. With variances
    between rounds (of processes) and within rounds (of passes), the best number is
    sqrt(opening_s / pass_s * within / between): Kalibera and Jones, "Rigorous Benchmarking in Reasonable
    Time", ISMM 2013. Until three rounds tell the variances it is FIRST_PASSES, or what takes as long as
    opening. At least FEWEST_PASSES, at most MOST_PASSES.
    Raises ValueError for costs that are not positive.
    """
    if not (opening_s > 0 and pass_s > 0):
        raise ValueError(f"costs must be positive, got {opening_s} and {pass_s}")
    affordable = int(np.clip(opening_s / pass_s, FEWEST_PASSES, MOST_PASSES))
    within, between = _variances(contrasts)
    if not within:
        return min(affordable, FIRST_PASSES)
    if between <= 0:
        return affordable
    return int(np.clip(round(sqrt(opening_s / pass_s * within / between)), FEWEST_PASSES, MOST_PASSES))


def _variances(contrasts: NDArray[np.float64]) -> tuple[float, float]:
    """Return the typical variance of passes within rounds, and of rounds beyond what their passes explain.

    By medians over variants of robust spreads, since some rounds and passes are spoiled.
    """
    in_all_rounds = np.isfinite(contrasts).any(axis=1).all(axis=0)
    contrasts = contrasts[:, :, in_all_rounds]
    rounds, passes, variants = contrasts.shape
    if rounds < 3 or passes < 2 or not variants:
        return 0.0, 0.0
    centres = np.nanmedian(contrasts, axis=1)
    within = np.nanmedian((_SPREAD * np.nanmedian(np.abs(contrasts - centres[:, None]), axis=1)) ** 2)
    apart = _SPREAD * np.nanmedian(np.abs(centres - np.nanmedian(centres, axis=0)), axis=0)
    counts = np.isfinite(contrasts).sum(axis=1).mean()
    # The variance of a median of normal values is pi / 2 times that of their mean.
    between = float(np.nanmedian(apart**2)) - np.pi / 2 * float(within) / counts
    return float(within), between


# Of the median absolute deviation, which makes it the standard deviation of normal values.
_SPREAD = 1.4826
