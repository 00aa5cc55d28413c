"""The gate: what got worse since a baseline, by figures that do not depend on the hour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from quant_explorer.analysis.decide.gate import STATIC, gate_size
from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.difference import describe_contrasts, facts_of_environment, find_differences
from quant_explorer.core.errors import StudyError
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.limits import GateLimits
from quant_explorer.stats.intervals import Interval, interval_of_quotient

MOST_MAC_FRACTION_LOST = 0.01


@dataclass(frozen=True)
class Check:
    """One rule held against one variant; `message` has the figures, or why it was skipped."""

    model: str
    variant: str
    rule: str
    verdict: Literal["passed", "failed", "skipped"]
    message: str


def gate(results: Results, baseline: Results, limits: GateLimits) -> tuple[Check, ...]:
    """Hold every variant that the baseline measured against what it is now.

    A latency is a regression when it is beyond the limit and its interval leaves out "as fast as before"; the
    intervals of all variants hold together, so that many of them are no reason for a false alarm. Latencies
    are not held where other work took the measuring cores too often.
    Raises StudyError when the two have no variant in common.
    """
    now = {(variant.model, variant.name): variant for variant in results.variants}
    before = [variant for variant in baseline.variants if variant.status is Status.OK]
    if not any((variant.model, variant.name) in now for variant in before):
        raise StudyError("nothing to compare: no variant that the baseline measured is in the results")
    return tuple(
        check
        for variant in before
        for check in _hold(
            variant, now.get((variant.model, variant.name)), results, baseline, limits, len(before)
        )
    ) + tuple(_hold_sizes(results, baseline))


def _hold(
    before: VariantResult,
    now: VariantResult | None,
    results: Results,
    baseline: Results,
    limits: GateLimits,
    comparisons: int,
) -> Iterator[Check]:
    if now is None or now.status is not Status.OK:
        why = "it is not in the results" if now is None else f"it {now.status.explain(now.reason)}"
        yield Check(before.model, before.name, "measured", "failed", why)
        return
    yield _hold_growth(before, "size", before.size.bytes, now.size.bytes, limits.max_size_growth)
    yield _hold_macs(before, now)
    yield _hold_quality(before, now, results, baseline, limits)
    yield _hold_latency(before, now, results, baseline, limits.max_slowdown, comparisons)
    if limits.max_memory_growth is not None:
        batch = str(baseline.run.ranked_batch)
        peaks = [(side.memory.peak_bytes or {}).get(batch) for side in (before, now)]
        yield _hold_growth(before, "peak memory", peaks[0], peaks[1], limits.max_memory_growth)


def _hold_growth(
    before: VariantResult, rule: str, old: float | None, new: float | None, limit: float
) -> Check:
    if not old or new is None:
        return Check(before.model, before.name, rule, "skipped", "not recorded in both")
    growth = new / old - 1
    message = f"{old:,.0f} to {new:,.0f} bytes ({growth:+.1%}), at most {limit:+.1%} allowed"
    return Check(before.model, before.name, rule, "failed" if new > old * (1 + limit) else "passed", message)


def _hold_macs(before: VariantResult, now: VariantResult) -> Check:
    rule = "int8_mac_fraction"
    old, new = before.executed.int8_mac_fraction, now.executed.int8_mac_fraction
    if old is None or new is None:
        return Check(before.model, before.name, rule, "skipped", "not reported in both")
    failed = old - new > MOST_MAC_FRACTION_LOST
    message = f"{old:.3f} to {new:.3f} of the MACs in INT8, at most {MOST_MAC_FRACTION_LOST} less allowed"
    return Check(before.model, before.name, rule, "failed" if failed else "passed", message)


def _hold_quality(
    before: VariantResult, now: VariantResult, results: Results, baseline: Results, limits: GateLimits
) -> Check:
    old, new = (_quality(side) for side in (before, now))
    if old is None or new is None or old[0] != new[0]:
        return Check(before.model, before.name, "accuracy", "skipped", "not scored in both")
    rule = old[0]
    if results.run.data_digest != baseline.run.data_digest or before.scored_images != now.scored_images:
        return Check(before.model, before.name, rule, "skipped", "scored on other images")
    drop = 100 * (old[1] - new[1])
    message = (
        f"{100 * old[1]:.2f} to {100 * new[1]:.2f} % of {now.scored_images:,} images ({-drop:+.2f} pp), "
        f"at most {-limits.max_drop_pp:+g} pp allowed"
    )
    # 5 of 1,000 images are 0.5 pp, whatever floating-point arithmetic makes of the difference.
    failed = round(drop, 9) > limits.max_drop_pp
    return Check(before.model, before.name, rule, "failed" if failed else "passed", message)


def _quality(variant: VariantResult) -> tuple[str, float] | None:
    if variant.accuracy is not None:
        return "accuracy", variant.accuracy.top1
    return None if variant.agreement is None else ("agreement", variant.agreement.top1_agreement)


def _hold_latency(
    before: VariantResult,
    now: VariantResult,
    results: Results,
    baseline: Results,
    limit: float,
    comparisons: int,
) -> Check:
    rule, batch = "latency", str(baseline.run.ranked_batch)
    here, there = results.environment, baseline.environment
    if not here.is_same_machine(there):
        found = find_differences(facts_of_environment(there), facts_of_environment(here))
        why = f"measured on another machine ({describe_contrasts(found)})"
        return Check(before.model, before.name, rule, "skipped", why)
    for run, when in ((baseline, "for the baseline"), (results, "now")):
        alike = [check for check in run.aa if (check.model, str(check.batch_size)) == (before.model, batch)]
        if any(check.disturbed for check in alike):
            why = f"other work took the measuring cores too often {when}"
            return Check(before.model, before.name, rule, "skipped", why)
    old, new = (side.latency.get(batch) for side in (before, now))
    if not (old and new and old.speedup and new.speedup and old.speedup_ci and new.speedup_ci):
        return Check(before.model, before.name, rule, "skipped", f"no speed-up at batch {batch} in both")
    slowdown = old.speedup / new.speedup
    interval = interval_of_quotient(old.speedup, old.speedup_ci, new.speedup, new.speedup_ci, comparisons)
    message = (
        f"{slowdown:.3f} {_ends(interval)} times as slow beside its FP32 as before, at most {1 + limit:.3f} "
        "allowed"
    )
    failed = slowdown > 1 + limit and interval.low > 1
    return Check(before.model, before.name, rule, "failed" if failed else "passed", message)


def _ends(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _hold_sizes(results: Results, baseline: Results) -> Iterator[Check]:
    """The rules of `gate-size`, for what did not violate them before."""
    if not any(variant.config.startswith(STATIC) for variant in results.variants):
        return
    known = {(violation.model, violation.cell, violation.kind) for violation in gate_size(baseline)}
    fresh = [
        violation
        for violation in gate_size(results)
        if (violation.model, violation.cell, violation.kind) not in known
    ]
    for violation in fresh:
        yield Check(
            violation.model, violation.cell, f"gate-size: {violation.kind}", "failed", violation.message
        )
    if not fresh:
        yield Check("", f"{STATIC}*", "gate-size", "passed", "no new violation")
