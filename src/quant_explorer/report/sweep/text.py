"""What a sweep found, in sentences for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from quant_explorer.analysis.sweep.deployment import Deployment
from quant_explorer.analysis.sweep.interaction import ADDS_UP
from quant_explorer.core.units import format_count, format_mb, format_ms
from quant_explorer.report.answer import describe_figures
from quant_explorer.report.decision import describe_decision
from quant_explorer.report.sweep.files import SeedFindings, SweepSummary


def describe_sweep(summary: SweepSummary, seeds: Sequence[SeedFindings]) -> Iterator[str]:
    """Yield the sentences that lead to the choices: counts, deployment, interactions, control, energy."""
    yield (
        f"{summary.measured} of {format_count(summary.variants, 'variant')} measured, {summary.unsupported} "
        f"not possible, {summary.failed} failed (sweep_errors.csv says why)."
    )
    for deployment in summary.deployments:
        yield from _deployment(deployment)
    yield from _interactions(seeds)
    yield f"Control: {summary.control}."
    yield f"Energy: {summary.energy}."


def describe_choices(summary: SweepSummary, seeds: Sequence[SeedFindings]) -> tuple[str, ...]:
    """Return what each set of budgets picks, with the figures of the first seed."""
    results = seeds[0].results
    sentences = []
    for decision in summary.decisions:
        chosen = next((one for one in results.variants if one.name == decision.chosen), None)
        figures = f" It is {describe_figures(results, chosen)}." if chosen else ""
        sentences.append(describe_decision(decision) + figures)
    return tuple(sentences)


def _deployment(deployment: Deployment) -> Iterator[str]:
    single = ", ".join(f"{name} {format_ms(value)} ms" for name, value in deployment.single_image_s.items())
    served = "; ".join(
        f"{one.images_per_s:,.0f} images/s at batch {one.batch_size} on {format_count(one.threads, 'core')}"
        for one in deployment.throughput
    )
    memory = ", ".join(
        f"{format_mb(size)} MB at batch {n}" for n, size in deployment.peak_memory_bytes.items()
    )
    start = "unknown" if deployment.cold_start_s is None else f"{format_ms(deployment.cold_start_s)} ms"
    yield (
        f"{deployment.name} deployed: cold start {start}; one image {single} ({deployment.calls:,} calls); "
        f"{served}; peak memory {memory or 'unknown'}."
    )


def _interactions(seeds: Sequence[SeedFindings]) -> Iterator[str]:
    found = [one for seed in seeds for one in seed.interactions if one.verdict]
    if not found:
        return
    verdicts = Counter(one.verdict for one in found)
    worst = max(found, key=lambda one: one.excess_pp or 0.0)
    told = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.most_common())
    yield (
        f"Losses of pruning and precision, over {len(found)} pairs: {told}. "
        f"('{ADDS_UP}': the interval of the excess holds 0.) The largest excess is {worst.excess_pp:+.2f} pp "
        f"[{worst.excess_low_pp:+.2f}, {worst.excess_high_pp:+.2f}]: {worst.precision} pruned by "
        f"{worst.pruning:g} on {worst.runtime}."
    )
