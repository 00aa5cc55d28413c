"""`quant-explorer pick`: the best variant within limits, from what was recorded."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.console import EXIT_NOTHING_WITHIN, output
from quant_explorer.cli.options import (
    json_option,
    limit_options,
    run_argument,
    runtime_option,
    verbosity_options,
)
from quant_explorer.core.settings.declaration import Value, merge
from quant_explorer.core.settings.limits import PickLimits


@click.command()
@run_argument()
@limit_options(PickLimits())
@runtime_option("all")
@verbosity_options
@json_option
def command(run: Path | None, runtimes: tuple[str, ...], as_json: bool, **given: Value) -> int:
    """Pick the best variant of RUN, a run folder, within limits: only what was recorded is read.

    The bad end of each interval must keep the limits. Exit 4 when no variant does, with what comes closest
    and the limit that costs most.
    """
    import msgspec

    from quant_explorer.analysis.decide.decision import decide
    from quant_explorer.analysis.rank import gather_candidates
    from quant_explorer.cli.job import recall
    from quant_explorer.report.decision import describe_decision

    limits = merge(PickLimits(), given)
    study, info = recall(run)
    budgets, batch = limits.budgets(runtimes), limits.batch or info.ranked_batch
    decisions = {
        found.evidence.model: decide([found], budgets, batch=batch, minimize=limits.minimize)
        for found in gather_candidates(study, info, confidence=limits.confidence)
    }
    if as_json:
        output.file.write(msgspec.json.format(msgspec.json.encode(decisions), indent=2).decode() + "\n")
    else:
        for model, decision in decisions.items():
            output.print(
                f"{model}: {describe_decision(decision)}", highlight=False, markup=False, soft_wrap=True
            )
    return 0 if all(decision.chosen for decision in decisions.values()) else EXIT_NOTHING_WITHIN
