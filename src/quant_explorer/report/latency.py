"""Latency from rounds: the round is the independent unit, and variants compare within rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.measurement import Round, TimingEnd, twin_key
from quant_explorer.core.stats import (
    FEWEST_FOR_QUOTIENT,
    Interval,
    median_interval,
    quotient_interval,
    ratio_interval,
    tail_percentile,
)
from quant_explorer.report.results import Latency, TwinCheck

NOT_TIMED = "not timed at this batch size"
MIN_ROUNDS = 2


@dataclass(frozen=True)
class Timings:
    """The rounds of one model at one batch size.

    `medians` maps a digest (or a twin's key) to the median call of each round in seconds, shape
    (rounds,), NaN where it was not timed. Variants that were not timed in the same rounds (those of another
    group, or one that was settled early) compare through the baseline.
    """

    baseline: str
    rounds: tuple[Round, ...]
    medians: dict[str, NDArray[np.float64]]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that were timed, in the order first seen."""
        return tuple(dict.fromkeys(one.group for one in self.rounds))

    def comparable(self, digest: str) -> NDArray[np.float64]:
        """Seconds of each round to resample, NaN where the variant was not timed.

        Where any variant was not timed in every round, they are the ratio to the baseline of that round,
        times the baseline's overall median: else drift between rounds would count as a difference.
        """
        baseline = self.medians[self.baseline]
        timed = [seconds for seconds in self._variants() if np.isfinite(seconds).any()]
        if not np.isnan(timed).any() or not np.isfinite(baseline).any():
            return self.medians[digest]
        return self.medians[digest] * (float(np.nanmedian(baseline)) / baseline)

    def seconds(self, digest: str) -> NDArray[np.float64]:
        """Seconds of each round as reported: comparable; the baseline's as timed, with all their spread."""
        return self.medians[digest] if digest == self.baseline else self.comparable(digest)

    def calls_s(self, digest: str) -> NDArray[np.float64]:
        """Seconds of every timed call, empty for a variant that was not timed.

        As observed, times one factor that brings the median of the rounds to that of `seconds`.
        """
        blocks = [np.array(one.calls_ns.get(digest, ())) / 1e9 for one in self.rounds]
        calls = np.concatenate(blocks) if blocks else np.array([])
        if not len(calls):
            return calls
        level: float = np.nanmedian(self.seconds(digest)) / np.nanmedian(self.medians[digest])
        return calls * level

    def _variants(self) -> list[NDArray[np.float64]]:
        return [seconds for key, seconds in self.medians.items() if key != twin_key(self.baseline)]


def collect_timings(rounds: Iterable[Round], baseline: str, digests: Iterable[str]) -> Timings:
    """Gather the rounds in which any of `digests` was timed; `baseline` is the digest compared with."""
    wanted = {*digests, baseline}
    kept = tuple(one for one in rounds if not wanted.isdisjoint(one.calls_ns))
    medians = {
        key: np.array([_median_s(one.calls_ns.get(key, ())) for one in kept])
        for key in (*sorted(wanted), twin_key(baseline))
    }
    return Timings(baseline, kept, medians)


def no_latency(reason: str) -> Latency:
    """Return the latency of a variant that has none, with the reason beside every figure."""
    figures = ("p50_s", "p50_ci_s", "p95_s", "p99_s", "mean_s", "speedup", "speedup_ci")
    names = (*figures, "speedup_same_runtime", "speedup_same_runtime_ci")
    return Latency(reasons=dict.fromkeys(names, reason))


def latency_of(timings: Timings, digest: str, same_runtime: str | None, *, settled: bool) -> Latency:
    """Derive one variant's latency; `same_runtime` is the digest of its own runtime's FP32 baseline."""
    seconds = timings.seconds(digest)
    timed = np.flatnonzero(np.isfinite(seconds))
    if not len(timed):
        return no_latency(NOT_TIMED)
    reasons: dict[str, str] = {}
    calls_s = timings.calls_s(digest)
    p50_s, p50_ci_s = float(np.median(seconds[timed])), None
    if len(timed) >= MIN_ROUNDS:
        p50_s, p50_ci_s = median_interval(seconds[timed])
    else:
        reasons["p50_ci_s"] = _too_few(len(timed))
    p95_s, p99_s = (_tail(calls_s, q, reasons) for q in (95, 99))
    speedup, speedup_ci = _speedup(timings, timings.baseline, digest, "speedup", reasons)
    same, same_ci = _speedup(timings, same_runtime, digest, "speedup_same_runtime", reasons)
    return Latency(
        p50_s=p50_s,
        p50_ci_s=p50_ci_s,
        p95_s=p95_s,
        p99_s=p99_s,
        mean_s=float(calls_s.mean()),
        calls=len(calls_s),
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
    baseline, twin = timings.medians[timings.baseline], timings.medians[twin_key(timings.baseline)]
    checks = []
    for group in timings.groups:
        inside = np.array([one.group == group for one in timings.rounds])
        both = inside & np.isfinite(baseline) & np.isfinite(twin)
        stops = [end.stopped_by for end in ends if (end.group, end.batch_size) == (group, batch_size)]
        reasons = {} if stops else {"stopped_by": "the rounds did not reach their end"}
        ratio, interval, separable = None, None, None
        if both.sum() >= MIN_ROUNDS:
            ratio, interval = ratio_interval(baseline[both], twin[both])
            separable = not interval.contains(1.0)
        else:
            reasons |= dict.fromkeys(("ratio", "ratio_ci", "separable"), _too_few(int(both.sum())))
        stopped_by = stops[-1] if stops else None
        checks.append(
            TwinCheck(
                model, batch_size, group, int(inside.sum()), ratio, interval, separable, stopped_by, reasons
            )
        )
    return tuple(checks)


def _median_s(calls_ns: Sequence[int]) -> float:
    return float(np.median(calls_ns)) / 1e9 if calls_ns else float("nan")


def _tail(calls_s: NDArray[np.float64], q: Literal[95, 99], reasons: dict[str, str]) -> float | None:
    value, reason = tail_percentile(calls_s, q)
    if reason is not None:
        reasons[f"p{q}_s"] = reason
    return value


def _speedup(
    timings: Timings, reference: str | None, digest: str, name: str, reasons: dict[str, str]
) -> tuple[float | None, Interval | None]:
    if reference == digest:
        return 1.0, Interval(1.0, 1.0)
    variant = timings.medians[digest]
    other = timings.medians.get(reference) if reference else None
    both = np.isfinite(variant) & np.isfinite(other) if other is not None else np.zeros(len(variant), bool)
    if other is not None and not both.any():
        # Of another group: through the baseline, which is in every one.
        own, others = (_against_baseline(timings, seconds) for seconds in (variant, other))
        if min(len(own), len(others)) >= FEWEST_FOR_QUOTIENT:
            return quotient_interval(own, others)
    if both.sum() < MIN_ROUNDS or other is None:
        reason = _too_few(int(both.sum())) if reference else "this runtime has no FP32 baseline"
        reasons |= {name: reason, f"{name}_ci": reason}
        return None, None
    return ratio_interval(other[both], variant[both])


def _against_baseline(timings: Timings, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    ratios = timings.medians[timings.baseline] / seconds
    return ratios[np.isfinite(ratios)]


def _too_few(rounds: int) -> str:
    return f"needs at least {MIN_ROUNDS} rounds that timed both, has {rounds}"
