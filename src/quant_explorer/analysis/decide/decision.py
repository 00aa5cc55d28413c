"""Which variant the budgets pick, what ties with it, and by how much the others miss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

from quant_explorer.analysis.decide.budgets import Excess, judge, latency_at, memory_at
from quant_explorer.analysis.decide.search_split import SearchSplit, examine_search
from quant_explorer.analysis.evidence import Evidence
from quant_explorer.analysis.hardware.energy import energy_per_call
from quant_explorer.analysis.results import VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.groups import DecisionRules
from quant_explorer.core.settings.plan import Budgets, Cost
from quant_explorer.stats.intervals import Interval

SUPERLATIVE: dict[Cost, str] = {
    "latency": "the fastest",
    "size": "the smallest",
    "memory": "that with the least peak memory",
    "energy": "that with the least energy",
}


@dataclass(frozen=True)
class Candidates:
    """The variants of one model in one environment (of a sweep: of one seed), with their evidence."""

    variants: tuple[VariantResult, ...]
    evidence: Evidence

    @cached_property
    def search(self) -> SearchSplit:
        """What the search split says of them."""
        return examine_search(self.evidence)


@dataclass(frozen=True)
class Rejection:
    """A measured variant that one budget or more rejects; `over` has a sentence for each, with its amount."""

    name: str
    over: tuple[str, ...]


@dataclass(frozen=True)
class Obstacle:
    """The budget that costs most where nothing keeps all: `freed` keep all others, `rejected` exceed it."""

    budget: str
    freed: tuple[str, ...]
    rejected: int


@dataclass(frozen=True)
class Decision:
    """What one set of budgets picks: `chosen`, or where nothing is within them `closest` and `obstacle`.

    `tied` are those within the budgets that nothing measured separates from `chosen`, the best point first.
    With several seeds a variant has to be within budget in each of them. `judged_on` is the split whose
    images decide about the accuracy drop, with the reason where it is not the search split.
    """

    budgets: Budgets
    chosen: str | None
    rule: str
    within: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    closest: Rejection | None
    failed: tuple[str, ...]
    tied: tuple[str, ...] = ()
    obstacle: Obstacle | None = None
    judged_on: str = ""


def decide(
    seeds: Sequence[Candidates],
    budgets: Budgets,
    *,
    batch: int,
    minimize: Cost = "latency",
    rules: DecisionRules | None = None,
) -> Decision:
    """Judge the variants of all seeds, one entry a seed, at a batch size, and pick the least of a cost.

    Latencies tie when a direct comparison by shared rounds does not separate them by more than the share that
    `rules` allow, sizes and peak memories when they are that near each other, energies and 99th percentiles
    when their intervals overlap. With several seeds, two tie unless each seed separates them.
    """
    scale = _Scale(seeds, budgets, batch, minimize, rules or DecisionRules())
    by_name: dict[str, list[VariantResult]] = {}
    for seed in seeds:
        for variant in seed.variants:
            if not budgets.runtimes or variant.runtime in budgets.runtimes:
                by_name.setdefault(variant.name, []).append(variant)
    sound = {
        name: found
        for name, found in by_name.items()
        if len(found) == len(seeds) and all(variant.status is Status.OK for variant in found)
    }
    # A variant has to be within budget in each seed, by images of the same kind.
    weakest = next((seed.search for seed in seeds if not seed.search.decides(budgets)), seeds[0].search)
    excesses = {
        name: [
            excess
            for seed, variant in zip(seeds, found, strict=True)
            for excess in judge(
                variant,
                budgets,
                batch=batch,
                timings=seed.evidence.timings.get(batch),
                search=seed.search.change_that_decides(variant.digest, budgets)
                if weakest.decides(budgets)
                else None,
            )
        ]
        for name, found in sound.items()
    }
    within = {name: found for name, found in sound.items() if not excesses[name]}
    rejected = {
        name: Rejection(name, tuple(dict.fromkeys(excess.describe() for excess in found)))
        for name, found in excesses.items()
        if found
    }
    costs = {name: cost for name, found in within.items() if (cost := scale.cost(found)) is not None}
    order = sorted(costs, key=lambda name: costs[name])
    every_seed = " in every seed" if len(seeds) > 1 else ""
    nearest = min(rejected, key=lambda name: _worst(excesses[name])) if rejected and not within else None
    return Decision(
        budgets=budgets,
        chosen=order[0] if order else None,
        rule=_rule(scale, within, order) if sound else f"no variant was measured{every_seed}",
        within=tuple(within),
        rejected=tuple(rejected.values()),
        closest=rejected[nearest] if nearest else None,
        failed=tuple(name for name in by_name if name not in sound),
        tied=tuple(name for name in order[1:] if scale.ties(within[order[0]], within[name])),
        obstacle=_find_obstacle(excesses) if nearest else None,
        judged_on=weakest.explain(budgets) if sound else "",
    )


@dataclass(frozen=True)
class _Scale:
    """What a variant costs, and whether two differ in it; a variant is given as one entry a seed."""

    seeds: Sequence[Candidates]
    budgets: Budgets
    batch: int
    minimize: Cost
    rules: DecisionRules

    def cost(self, variants: Sequence[VariantResult]) -> float | None:
        """Return the mean over seeds, None where one of them has no figure."""
        found = [self._figure(seed, variant) for seed, variant in zip(self.seeds, variants, strict=True)]
        known = [figure[0] for figure in found if figure is not None]
        return mean(known) if len(known) == len(variants) else None

    def ties(self, best: Sequence[VariantResult], other: Sequence[VariantResult]) -> bool:
        """Say whether a seed does not show that `best` costs less."""
        return any(
            self._tie(seed, first, second)
            for seed, first, second in zip(self.seeds, best, other, strict=True)
        )

    def _figure(self, seed: Candidates, variant: VariantResult) -> tuple[float, Interval | None] | None:
        match self.minimize:
            case "latency":
                found = latency_at(variant, self.budgets, self.batch, seed.evidence.timings.get(self.batch))
                return None if isinstance(found, str) else found
            case "size":
                return None if variant.size.bytes is None else (variant.size.bytes, None)
            case "memory":
                peak = memory_at(variant, self.batch)
                return None if isinstance(peak, str) else (peak, None)
            case "energy":
                blocks = seed.evidence.energy(variant.digest)
                return energy_per_call(blocks) if len(blocks) > 1 else None

    def _tie(self, seed: Candidates, best: VariantResult, other: VariantResult) -> bool:
        if self.minimize == "latency" and self.budgets.percentile == "p50":
            compared = seed.evidence.timings[self.batch].compare(best.digest, other.digest)
            return isinstance(compared, str) or compared[1].low <= 1 + self.rules.epsilon_latency
        first, second = self._figure(seed, best), self._figure(seed, other)
        if first is None or second is None:
            return False
        if first[1] is None or second[1] is None:
            return second[0] <= first[0] * (1 + self.rules.epsilon_size)
        return second[1].low <= first[1].high


def _rule(scale: _Scale, within: Mapping[str, Sequence[VariantResult]], order: Sequence[str]) -> str:
    if not within:
        return "nothing is within all budgets"
    if not order:
        place = f" at batch size {scale.batch}" if scale.minimize == "latency" else ""
        return f"none of those within all budgets has a figure of {scale.minimize}{place}"
    return f"{SUPERLATIVE[scale.minimize]} of those within all budgets"


def _find_obstacle(excesses: Mapping[str, Sequence[Excess]]) -> Obstacle:
    """Return the budget without which most variants are within; where none frees any, that most exceed."""
    exceeded = {name: {excess.budget for excess in found} for name, found in excesses.items()}
    counts = Counter(budget for budgets in exceeded.values() for budget in budgets)
    nearest_first = sorted(exceeded, key=lambda name: _worst(excesses[name]) if excesses[name] else 0.0)
    freed = {budget: tuple(name for name in nearest_first if exceeded[name] == {budget}) for budget in counts}
    worst = max(sorted(counts), key=lambda budget: (len(freed[budget]), counts[budget]))
    return Obstacle(worst, freed[worst], counts[worst])


def _worst(excesses: Sequence[Excess]) -> float:
    return max(excess.relative for excess in excesses)
