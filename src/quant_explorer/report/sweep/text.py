"""What a sweep found, in sentences for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from quant_explorer.analysis.results import Results
from quant_explorer.analysis.sweep.deployment import Deployment
from quant_explorer.analysis.sweep.interaction import ADDS_UP, Interaction
from quant_explorer.analysis.sweep.summary import SweepSummary
from quant_explorer.analysis.sweep.tables import SweepTables
from quant_explorer.core.units import format_count, format_mb, format_ms
from quant_explorer.report.answer import describe_figures
from quant_explorer.report.decision import describe_decision


def describe_sweep(tables: SweepTables) -> Iterator[str]:
    """Yield the sentences that lead to the choices: counts, deployment, interactions, control, energy."""
    summary = tables.summary
    yield (
        f"{summary.measured} of {format_count(summary.variants, 'variant')} measured, {summary.unsupported} "
        f"not possible, {summary.failed} failed (sweep_errors.csv says why)."
    )
    for deployment in summary.deployments:
        yield from _deployment(deployment)
    yield from _interactions(tables.interactions)
    yield f"Control: {summary.control}."
    yield f"Energy: {summary.energy}."


def describe_choices(summary: SweepSummary, results: Results) -> tuple[str, ...]:
    """Return what each set of budgets picks, with the figures of the first seed's `results`."""
    sentences = []
    for decision in summary.decisions:
        chosen = next((variant for variant in results.variants if variant.name == decision.chosen), None)
        figures = f" It is {describe_figures(results, chosen)}." if chosen else ""
        sentences.append(describe_decision(decision) + figures)
    return tuple(sentences)


def _deployment(deployment: Deployment) -> Iterator[str]:
    single = ", ".join(f"{name} {format_ms(value)} ms" for name, value in deployment.single_image_s.items())
    served = "; ".join(
        f"{load.images_per_s:,.0f} images/s at batch {load.batch_size}"
        f" on {format_count(load.threads, 'core')}"
        for load in deployment.throughput
    )
    memory = ", ".join(
        f"{format_mb(size)} MB at batch {n}" for n, size in deployment.peak_memory_bytes.items()
    )
    start = "unknown" if deployment.cold_start_s is None else f"{format_ms(deployment.cold_start_s)} ms"
    yield (
        f"{deployment.name} deployed: cold start {start}; one image {single} ({deployment.calls:,} calls); "
        f"{served}; peak memory {memory or 'unknown'}."
    )


def _interactions(interactions: Sequence[Interaction]) -> Iterator[str]:
    found = [pair for pair in interactions if pair.verdict]
    if not found:
        return
    verdicts = Counter(pair.verdict for pair in found)
    worst = max(found, key=lambda pair: pair.excess_pp or 0.0)
    counts = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.most_common())
    yield (
        f"Losses of pruning and precision, over {len(found)} pairs: {counts}. "
        f"('{ADDS_UP}': the interval of the excess holds 0.) The largest excess is {worst.excess_pp:+.2f} pp "
        f"[{worst.excess_low_pp:+.2f}, {worst.excess_high_pp:+.2f}]: {worst.precision} pruned by "
        f"{worst.pruning:g} on {worst.runtime}."
    )
