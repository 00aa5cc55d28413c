"""What a sweep found, in short: counts, what the budgets pick, and what a picked variant is like in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quant_explorer.analysis.decide.decision import Candidates, Decision, decide
from quant_explorer.analysis.sweep.deployment import Deployment, describe_deployment
from quant_explorer.analysis.sweep.findings import SeedFindings
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.difference import describe_contrasts, facts_of_environment, find_differences
from quant_explorer.core.errors import StudyError
from quant_explorer.core.measurement import Status
from quant_explorer.core.recipe import CONTROL_CONFIG
from quant_explorer.core.settings.plan import SweepPlan


@dataclass(frozen=True)
class SweepSummary:
    """The content of `summary.json`; `energy` and `control` are sentences without a full stop."""

    model: str
    data: str
    seeds: tuple[int, ...]
    variants: int
    measured: int
    unsupported: int
    failed: int
    decisions: tuple[Decision, ...]
    deployments: tuple[Deployment, ...]
    frontier: tuple[str, ...]
    peaks: Peaks | None
    energy: str
    control: str
    distrust: tuple[str, ...]


def summarize_sweep(seeds: Sequence[SeedFindings], plan: SweepPlan) -> SweepSummary:
    """Hold the variants of all seeds against the budgets, and describe what each of them picks."""
    first = seeds[0]
    run = first.results.run
    decisions = decide_all(seeds, plan)
    chosen = dict.fromkeys(decision.chosen for decision in decisions if decision.chosen is not None)
    statuses = [row.status for seed in seeds for row in seed.rows]
    measured, unsupported = statuses.count(Status.OK), statuses.count(Status.UNSUPPORTED)
    timings = first.evidence.timings[run.ranked_batch]
    return SweepSummary(
        model=plan.model,
        data=run.settings.data,
        seeds=plan.seeds,
        variants=len(statuses),
        measured=measured,
        unsupported=unsupported,
        failed=len(statuses) - measured - unsupported,
        decisions=decisions,
        deployments=tuple(describe_deployment(first.results, name, timings) for name in chosen),
        frontier=tuple(variant.name for variant in first.results.variants if variant.frontier.on_frontier),
        peaks=first.peaks,
        energy=_energy(first),
        control=_control(first),
        distrust=first.results.distrust,
    )


def decide_all(seeds: Sequence[SeedFindings], plan: SweepPlan) -> tuple[Decision, ...]:
    """Hold the variants of all seeds against each of the plan's budgets.

    Raises StudyError for seeds that were measured in different environments: they are not ranked together.
    """
    first = seeds[0]
    for other in seeds[1:]:
        there, here = other.results.environment, first.results.environment
        if there != here:
            found = find_differences(facts_of_environment(there), facts_of_environment(here))
            raise StudyError(
                f"seed {other.seed} was measured in another environment than seed {first.seed} "
                f"({describe_contrasts(found)}), and such figures are never ranked together; measure both "
                "here, or report each alone with --seeds"
            )
    candidates = [Candidates(seed.results.variants, seed.evidence) for seed in seeds]
    batch = first.results.run.ranked_batch
    return tuple(decide(candidates, budgets, batch=batch, rules=plan.rules) for budgets in plan.budgets)


def _energy(seed: SeedFindings) -> str:
    """Say whether energy was measured, and why not."""
    reasons = dict.fromkeys(
        measurement.energy_reason for measurement in seed.evidence.measurements if measurement.energy_reason
    )
    if any(row.energy_j for row in seed.rows):
        return "measured by the counters of the CPU packages, which count all that runs on them"
    return f"not measured: {'; '.join(reasons) or 'no round has a figure'}"


def _control(seed: SeedFindings) -> str:
    """Say what fine-tuning alone does, since pruned models were fine-tuned."""
    for variant in seed.results.variants:
        if variant.config == CONTROL_CONFIG and variant.accuracy and variant.accuracy.diff_ci_pp:
            interval = variant.accuracy.diff_ci_pp
            return (
                "fine-tuning the unpruned model for as long changes top-1 by "
                f"{variant.accuracy.diff_pp:+.2f} pp [{interval.low:+.2f}, {interval.high:+.2f}] "
                f"({variant.accuracy.verdict}): that much of a pruned variant's accuracy is training"
            )
    return "nothing was fine-tuned"
