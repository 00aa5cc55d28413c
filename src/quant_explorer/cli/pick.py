"""`quant-explorer pick`: the best variant within limits, from what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quant_explorer.cli.console import EXIT_NOTHING_WITHIN, output
from quant_explorer.cli.options import json_option, run_argument, runtime_option, verbosity_options
from quant_explorer.core.recipe import BASELINE
from quant_explorer.core.settings.groups import MARGIN_PP

if TYPE_CHECKING:
    from quant_explorer.core.settings.plan import Cost, Percentile

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@run_argument()
@click.option(
    "--max-drop-pp",
    type=click.FloatRange(min=0),
    default=MARGIN_PP,
    show_default=True,
    metavar="PP",
    help=f"Loss of top-1 against {BASELINE}; of a model without accuracy, changed predictions.",
)
@click.option("--max-latency-ms", type=_POSITIVE, metavar="MS", help="Of a call.  [default: no limit]")
@click.option("--batch", type=click.IntRange(min=1), help="Batch size.  [default: the smallest of the run]")
@click.option(
    "--percentile",
    type=click.Choice(("p50", "p99")),
    default="p50",
    show_default=True,
    help="Of the calls' latencies.",
)
@click.option("--max-size-mb", type=_POSITIVE, metavar="MB", help="Of all files.  [default: no limit]")
@click.option(
    "--max-memory-mb",
    type=_POSITIVE,
    metavar="MB",
    help="Of peak memory above the empty runtime's.  [default: no limit]",
)
@runtime_option("all")
@click.option(
    "--minimize",
    type=click.Choice(("latency", "size", "memory", "energy")),
    default="latency",
    show_default=True,
    help="What is best.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the intervals whose bad end must keep the limits.",
)
@verbosity_options
@json_option
def command(
    run: Path | None,
    max_drop_pp: float,
    max_latency_ms: float | None,
    batch: int | None,
    percentile: Percentile,
    max_size_mb: float | None,
    max_memory_mb: float | None,
    runtimes: tuple[str, ...],
    minimize: Cost,
    confidence: float,
    as_json: bool,
) -> int:
    """Pick the best variant of RUN, a run folder, within limits: only what was recorded is read.

    The bad end of each interval must keep the limits. Exit 4 when no variant does, with what comes closest
    and the limit that costs most.
    """
    import msgspec

    from quant_explorer.analysis.decide.decision import decide
    from quant_explorer.analysis.rank import gather_candidates
    from quant_explorer.cli.job import recall
    from quant_explorer.core.settings.plan import Budgets
    from quant_explorer.report.decision import describe_decision

    study, info = recall(run)
    budgets = Budgets(
        size_bytes=None if max_size_mb is None else max_size_mb * 1e6,
        memory_bytes=None if max_memory_mb is None else max_memory_mb * 1e6,
        latency_s=None if max_latency_ms is None else max_latency_ms * 1e-3,
        accuracy_drop_pp=max_drop_pp,
        percentile=percentile,
        runtimes=() if runtimes == ("all",) else runtimes,
    )
    decisions = {
        found.evidence.model: decide([found], budgets, batch=batch or info.ranked_batch, minimize=minimize)
        for found in gather_candidates(study, info, confidence=confidence)
    }
    if as_json:
        output.file.write(msgspec.json.format(msgspec.json.encode(decisions), indent=2).decode() + "\n")
    else:
        for model, decision in decisions.items():
            output.print(
                f"{model}: {describe_decision(decision)}", highlight=False, markup=False, soft_wrap=True
            )
    return 0 if all(decision.chosen for decision in decisions.values()) else EXIT_NOTHING_WITHIN
