"""Which variant the budgets pick, and by how much the others miss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from quant_explorer.analysis.results import VariantResult
from quant_explorer.analysis.sweep.budgets import Excess, judge
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import Budgets

FASTEST_WITHIN = "the fastest of those within all budgets"
FASTEST_WITHOUT_LOSS = (
    "no accuracy limit is set: the fastest of those within all budgets whose accuracy is no measurable loss"
)
MOST_ACCURATE = "no accuracy limit is set, and all within budget lose accuracy: the most accurate of them"


@dataclass(frozen=True)
class Rejection:
    """A measured variant that one budget or more rejects; `over` has a sentence for each, with its amount."""

    name: str
    over: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What one set of budgets picks: `chosen`, or where nothing is within them `closest`.

    With several seeds a variant has to be within budget in each of them.
    """

    budgets: Budgets
    chosen: str | None
    rule: str
    within: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    closest: Rejection | None
    failed: tuple[str, ...]


def decide(seeds: Sequence[Sequence[VariantResult]], budgets: Budgets, *, batch: int) -> Decision:
    """Judge the variants of all seeds, one sequence a seed, at a batch size."""
    by_name: dict[str, list[VariantResult]] = {}
    for variants in seeds:
        for variant in variants:
            by_name.setdefault(variant.name, []).append(variant)
    sound = {
        name: ones
        for name, ones in by_name.items()
        if len(ones) == len(seeds) and all(one.status is Status.OK for one in ones)
    }
    excesses = {
        name: [excess for one in ones for excess in judge(one, budgets, batch=batch)]
        for name, ones in sound.items()
    }
    within = {name: ones for name, ones in sound.items() if not excesses[name]}
    rejected = {
        name: Rejection(name, tuple(dict.fromkeys(excess.describe() for excess in found)))
        for name, found in excesses.items()
        if found
    }
    chosen, rule = _choose(within, budgets, str(batch)) if within else (None, "nothing is within all budgets")
    return Decision(
        budgets=budgets,
        chosen=chosen,
        rule=rule,
        within=tuple(within),
        rejected=tuple(rejected.values()),
        closest=rejected[min(rejected, key=lambda name: _worst(excesses[name]))]
        if rejected and not within
        else None,
        failed=tuple(name for name in by_name if name not in sound),
    )


def _choose(
    within: Mapping[str, Sequence[VariantResult]], budgets: Budgets, batch: str
) -> tuple[str | None, str]:
    timed = {
        name: mean(latencies)
        for name, ones in within.items()
        if (latencies := _latencies(ones, batch)) is not None
    }
    if not timed:
        return None, "none of those within all budgets was timed"
    if budgets.accuracy_drop_pp is not None:
        return min(timed, key=lambda name: timed[name]), FASTEST_WITHIN
    lossless = [
        name
        for name in timed
        if all(one.accuracy is None or one.accuracy.verdict != "loss" for one in within[name])
    ]
    if lossless:
        return min(lossless, key=lambda name: timed[name]), FASTEST_WITHOUT_LOSS
    return max(timed, key=lambda name: _accuracy(within[name])), MOST_ACCURATE


def _latencies(variants: Sequence[VariantResult], batch: str) -> list[float] | None:
    found = [latency.p50_s for one in variants if (latency := one.latency.get(batch)) is not None]
    known = [p50_s for p50_s in found if p50_s is not None]
    return known if len(known) == len(variants) else None


def _accuracy(variants: Sequence[VariantResult]) -> float:
    return mean(one.accuracy.top1 if one.accuracy else 0.0 for one in variants)


def _worst(excesses: Sequence[Excess]) -> float:
    return max(excess.relative for excess in excesses)
