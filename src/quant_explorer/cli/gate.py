"""`quant-explorer gate`: fail a CI job when a variant got worse than a baseline says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from quant_explorer.cli.console import EXIT_FAILED
from quant_explorer.cli.options import json_option, verbosity_options

_SHARE = click.FloatRange(min=0)


@click.command()
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--baseline",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Results as they should be: a full_results.json or multi_results.json.",
)
@click.option(
    "--max-drop-pp",
    type=_SHARE,
    default=0.5,
    show_default=True,
    metavar="PP",
    help="Loss of top-1, or of agreement with FP32.",
)
@click.option(
    "--max-slowdown",
    type=_SHARE,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Of the latency beside FP32 of the same run; held on the same machine alone.",
)
@click.option(
    "--max-size-growth", type=_SHARE, default=0.01, show_default=True, metavar="SHARE", help="Of all files."
)
@click.option(
    "--max-memory-growth", type=_SHARE, metavar="SHARE", help="Of the peak memory.  [default: not held]"
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML there.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write a summary there.")
@verbosity_options
@json_option
def command(
    results: Path,
    baseline: Path,
    max_drop_pp: float,
    max_slowdown: float,
    max_size_growth: float,
    max_memory_growth: float | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> int:
    """Hold RESULTS, a full_results.json or multi_results.json, against a baseline.

    Size, executed precision, accuracy and the rules of gate-size do not depend on the machine. Exit 1 on a
    regression, 2 when a file cannot be read or there is nothing to compare.
    """
    from quant_explorer.analysis.decide.regression import Limits, gate
    from quant_explorer.cli.console import output
    from quant_explorer.cli.job import print_figures, say
    from quant_explorer.core.artifact import write_atomically
    from quant_explorer.report.gate import findings_table, gate_markdown, junit_xml, summarize_gate
    from quant_explorer.report.render import load_results
    from quant_explorer.report.terminal import draw_table

    limits = Limits(max_drop_pp, max_slowdown, max_size_growth, max_memory_growth)
    checks = gate(load_results(results), load_results(baseline), limits)
    failed = [check for check in checks if check.verdict == "failed"]
    for path, content in ((junit, junit_xml(checks)), (markdown, gate_markdown(checks).encode())):
        if path is not None:
            write_atomically(path, content)
    if as_json:
        print_figures([asdict(check) for check in checks], as_json=True, title="")
    else:
        if failed:
            output.print(draw_table(findings_table(failed)))
        say(summarize_gate(checks))
    return EXIT_FAILED if failed else 0
