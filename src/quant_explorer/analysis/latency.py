"""Latency from rounds: the round is the independent unit, and variants compare within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.results import Latency, TwinCheck
from quant_explorer.core.measurement import Round, TimingEnd, twin_key
from quant_explorer.stats.contrasts import log_contrasts
from quant_explorer.stats.intervals import (
    CONFIDENCE,
    FEWEST_FOR_QUOTIENT,
    Interval,
    median_interval,
    quotient_interval,
)
from quant_explorer.stats.rounds import tail_percentile

NOT_TIMED = "not timed at this batch size"
MIN_ROUNDS = 2
# Of the measuring cores' time in a round, taken by others. A quiet machine's own services take under 1 %.
DISTURBING_SHARE = 0.03


@dataclass(frozen=True)
class Timings:
    """The rounds of one model at one batch size.

    `contrasts` maps a digest (or a twin's key) to log(its time / the baseline's near it) in each pass of each
    round, shape (rounds, passes), NaN where it was not timed. `baseline_s` is the baseline's median call
    of each round in seconds, shape (rounds,), NaN where it was not timed.
    """

    baseline: str
    rounds: tuple[Round, ...]
    contrasts: dict[str, NDArray[np.float64]]
    baseline_s: NDArray[np.float64]
    confidence: float = CONFIDENCE

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that were timed, in the order first seen."""
        return tuple(dict.fromkeys(round_.group for round_ in self.rounds))

    @property
    def baseline_p50_s(self) -> float:
        """The median of the baseline's rounds; NaN when it was not timed."""
        timed = self.baseline_s[np.isfinite(self.baseline_s)]
        return float(np.median(timed)) if len(timed) else float("nan")

    def log_ratios(self, digest: str, reference: str) -> NDArray[np.float64]:
        """log(time / the reference's time) of each round: the median over the passes that timed both."""
        return _median_of_passes(self.contrasts[digest] - self.contrasts[reference])

    def seconds(self, digest: str) -> NDArray[np.float64]:
        """Seconds of a call in each round, NaN where it was not timed.

        The baseline's are as timed. Others are the ratio to the baseline near them times the baseline's p50,
        so that a slow mode of the machine is no difference between variants.
        """
        return self.baseline_s if digest == self.baseline else self.levelled(digest)

    def levelled(self, digest: str) -> NDArray[np.float64]:
        """As `seconds`, but the baseline's p50 for the baseline too: what variants are ranked by."""
        return self.baseline_p50_s * np.exp(self.log_ratios(digest, self.baseline))

    def calls_s(self, digest: str) -> tuple[NDArray[np.float64], ...]:
        """Seconds of the timed calls of each round in which the variant was timed.

        As observed, times one factor that brings the median of the rounds to that of `seconds`.
        """
        timed = [np.array(calls) / 1e9 for round_ in self.rounds if (calls := round_.calls_ns(digest))]
        if not timed:
            return ()
        level = float(np.nanmedian(self.seconds(digest)) / np.median([np.median(calls) for calls in timed]))
        return tuple(calls * level for calls in timed)

    def stopped_early(self, digest: str, group: str) -> bool:
        """Say whether the last round of its group left a variant out."""
        inside = np.array([round_.group == group for round_ in self.rounds])
        timed: NDArray[np.bool_] = np.isfinite(self.contrasts[digest][inside]).any(axis=1)
        return bool(timed.any() and not timed[-1])

    def compare(self, digest: str, reference: str) -> tuple[float, Interval] | str:
        """Return how many times faster a variant is than a reference, with the interval, or why not.

        Directly, by the rounds that timed both; those of two groups that share none compare through the
        baseline, which is in every group.
        """
        ratios = np.exp(-self.log_ratios(digest, reference))
        shared = ratios[np.isfinite(ratios)]
        if len(shared) >= MIN_ROUNDS:
            return median_interval(shared, self.confidence)
        if not len(shared):
            own, other = (np.exp(-self.log_ratios(key, self.baseline)) for key in (digest, reference))
            own, other = own[np.isfinite(own)], other[np.isfinite(other)]
            if min(len(own), len(other)) >= FEWEST_FOR_QUOTIENT:
                return quotient_interval(own, other, self.confidence)
        return f"needs at least {MIN_ROUNDS} rounds that timed both, has {len(shared)}"


def collect_timings(
    rounds: Iterable[Round], baseline: str, digests: Iterable[str], confidence: float = CONFIDENCE
) -> Timings:
    """Gather the rounds of the groups in which any of `digests` was timed; `baseline` is compared with."""
    keys = (*sorted({*digests, baseline}), twin_key(baseline))
    kept = _current([round_ for round_ in rounds if not round_.keys.isdisjoint(keys)], keys, baseline)
    shape = (len(kept), max((len(round_.passes) for round_ in kept), default=0))
    contrasts = {key: np.full(shape, np.nan) for key in keys}
    for number, round_ in enumerate(kept):
        for place, blocks in enumerate(round_.passes):
            # On tuples this short several times as fast as NumPy's.
            medians = np.array([statistics.median(block.calls_ns) for block in blocks]) / 1e9
            found = log_contrasts([block.key for block in blocks], medians, baseline)
            for key in contrasts.keys() & found.keys():
                contrasts[key][number, place] = found[key]
    baseline_s = np.array([_median_s(round_.calls_ns(baseline)) for round_ in kept])
    return Timings(baseline, kept, contrasts, baseline_s, confidence)


def no_latency(reason: str) -> Latency:
    """Return the latency of a variant that has none, with the reason beside every figure."""
    figures = ("p50_s", "p50_ci_s", "p95_s", "p99_s", "mean_s", "speedup", "speedup_ci")
    names = (*figures, "speedup_same_runtime", "speedup_same_runtime_ci")
    return Latency(reasons=dict.fromkeys(names, reason))


def latency_of(timings: Timings, digest: str, same_runtime: str | None, *, settled: bool) -> Latency:
    """Derive one variant's latency; `same_runtime` is the digest of its own runtime's FP32 baseline."""
    seconds = timings.seconds(digest)
    timed = seconds[np.isfinite(seconds)]
    if not len(timed):
        return no_latency(NOT_TIMED)
    reasons: dict[str, str] = {}
    calls_s = timings.calls_s(digest)
    p50_s, p50_ci_s = float(np.median(timed)), None
    if len(timed) >= MIN_ROUNDS:
        p50_s, p50_ci_s = median_interval(timed, timings.confidence)
    else:
        reasons["p50_ci_s"] = f"needs at least {MIN_ROUNDS} rounds, has {len(timed)}"
    p95_s, p99_s = (_tail(calls_s, q, reasons) for q in (95, 99))
    speedup, speedup_ci = _speedup(timings, timings.baseline, digest, "speedup", reasons)
    same, same_ci = _speedup(timings, same_runtime, digest, "speedup_same_runtime", reasons)
    return Latency(
        p50_s=p50_s,
        p50_ci_s=p50_ci_s,
        p95_s=p95_s,
        p99_s=p99_s,
        mean_s=float(np.mean([calls.mean() for calls in calls_s])),
        calls=sum(map(len, calls_s)),
        rounds=len(timed),
        speedup=speedup,
        speedup_ci=speedup_ci,
        speedup_same_runtime=same,
        speedup_same_runtime_ci=same_ci,
        settled=settled,
        reasons=reasons,
    )


def check_twins(
    timings: Timings, model: str, batch_size: int, ends: Sequence[TimingEnd]
) -> tuple[TwinCheck, ...]:
    """Compare the baseline with its twin in every group of one model at one batch size."""
    ratios = np.exp(-timings.log_ratios(twin_key(timings.baseline), timings.baseline))
    checks = []
    for group in timings.groups:
        inside = np.array([round_.group == group for round_ in timings.rounds])
        both = inside & np.isfinite(ratios)
        stops = [end.stopped_by for end in ends if (end.group, end.batch_size) == (group, batch_size)]
        reasons = {} if stops else {"stopped_by": "the rounds did not reach their end"}
        ratio, interval, separable = None, None, None
        if both.sum() >= MIN_ROUNDS:
            ratio, interval = median_interval(ratios[both], timings.confidence)
            separable = not interval.contains(1.0)
        else:
            reasons |= dict.fromkeys(("ratio", "ratio_ci", "separable"), _too_few(int(both.sum())))
        disturbed = sum(
            round_.group == group
            and round_.conditions is not None
            and round_.conditions.taken_share > DISTURBING_SHARE
            for round_ in timings.rounds
        )
        checks.append(
            TwinCheck(
                model=model,
                batch_size=batch_size,
                group=group,
                rounds=int(inside.sum()),
                ratio=ratio,
                ratio_ci=interval,
                separable=separable,
                stopped_by=stops[-1] if stops else None,
                reasons=reasons,
                disturbed_rounds=disturbed,
            )
        )
    return tuple(checks)


def _current(rounds: Sequence[Round], keys: Sequence[str], baseline: str) -> tuple[Round, ...]:
    """Leave out groups that timed the baseline against variants of which none is in `keys` any more.

    A group goes on after its variants settled, so it counts as a whole. Where nothing else was timed, the
    baseline's rounds against others are still its own.
    """
    of_baseline = {baseline, twin_key(baseline)}
    timed: dict[str, set[str]] = {}
    for round_ in rounds:
        timed.setdefault(round_.group, set()).update(round_.keys)
    others = {*keys} - of_baseline
    gone = {group for group, members in timed.items() if members - of_baseline and members.isdisjoint(others)}
    return tuple(round_ for round_ in rounds if round_.group not in gone) or tuple(rounds)


def _median_s(calls_ns: Sequence[int]) -> float:
    return float(np.median(calls_ns)) / 1e9 if calls_ns else float("nan")


def _median_of_passes(contrasts: NDArray[np.float64]) -> NDArray[np.float64]:
    # As np.nanmedian, which is slow on the few passes of a round. Sorting puts NaN last.
    if not contrasts.size:
        return np.full(len(contrasts), np.nan)
    ordered, rounds = np.sort(contrasts, axis=1), np.arange(len(contrasts))
    counts = (~np.isnan(contrasts)).sum(axis=1)
    lower, upper = ordered[rounds, np.maximum(counts - 1, 0) // 2], ordered[rounds, counts // 2]
    return np.asarray((lower + upper) / 2)


def _tail(
    calls_s: Sequence[NDArray[np.float64]], q: Literal[95, 99], reasons: dict[str, str]
) -> float | None:
    value, reason = tail_percentile(calls_s, q)
    if reason is not None:
        reasons[f"p{q}_s"] = reason
    return value


def _speedup(
    timings: Timings, reference: str | None, digest: str, name: str, reasons: dict[str, str]
) -> tuple[float | None, Interval | None]:
    if reference == digest:
        return 1.0, Interval(1.0, 1.0)
    found = timings.compare(digest, reference) if reference else "this runtime has no FP32 baseline"
    if isinstance(found, str):
        reasons |= {name: found, f"{name}_ci": found}
        return None, None
    return found


def _too_few(rounds: int) -> str:
    return f"needs at least {MIN_ROUNDS} rounds that timed both, has {rounds}"
