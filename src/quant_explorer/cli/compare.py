"""`quant-explorer compare`: what became of each variant between two runs."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.console import output
from quant_explorer.cli.options import json_option, run_argument, verbosity_options


@click.command()
@run_argument("run_a", required=True)
@run_argument("run_b", required=True)
@verbosity_options
@json_option
def command(run_a: Path, run_b: Path, as_json: bool) -> int:
    """Compare the variants that RUN_A and RUN_B both measured: only what was recorded is read.

    Accuracies are paired where the images are the same. Speeds are ratios to FP32 of the same run; they
    compare when the machine is the same. Exit 2 when there is nothing to compare.
    """
    import msgspec

    from quant_explorer.analysis.decide.comparison import Recorded, compare_runs
    from quant_explorer.analysis.rank import gather_candidates, order_environments
    from quant_explorer.cli.job import recall, say
    from quant_explorer.report.comparison import comparison_table, describe_comparison
    from quant_explorer.report.terminal import draw_table

    sides = [recall(path) for path in (run_a, run_b)]
    recorded = [
        Recorded(order_environments(study, info)[0], gather_candidates(study, info)) for study, info in sides
    ]
    info = sides[1][1]
    found = compare_runs(recorded[0], recorded[1], info.ranked_batch, info.rules)
    if as_json:
        output.file.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
        return 0
    output.print(draw_table(comparison_table(found)))
    for sentence in describe_comparison(found):
        say(f"- {sentence}")
    return 0
