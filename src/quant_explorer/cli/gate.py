"""`quant-explorer gate`: fail a CI job when a variant got worse than a baseline says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from quant_explorer.cli.console import EXIT_FAILED
from quant_explorer.cli.options import json_option, limit_options, verbosity_options
from quant_explorer.core.settings.declaration import Value, merge
from quant_explorer.core.settings.limits import GateLimits


@click.command()
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--baseline",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Results as they should be: a full_results.json or multi_results.json.",
)
@limit_options(GateLimits())
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML there.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write a summary there.")
@verbosity_options
@json_option
def command(
    results: Path,
    baseline: Path,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    **given: Value,
) -> int:
    """Hold RESULTS, a full_results.json or multi_results.json, against a baseline.

    Size, executed precision, accuracy and the rules of gate-size do not depend on the machine. Exit 1 on a
    regression, 2 when a file cannot be read or there is nothing to compare.
    """
    from quant_explorer.analysis.decide.regression import gate
    from quant_explorer.cli.console import output
    from quant_explorer.cli.job import print_figures, say
    from quant_explorer.core.artifact import write_atomically
    from quant_explorer.report.gate import findings_table, gate_markdown, junit_xml, summarize_gate
    from quant_explorer.report.render import load_results
    from quant_explorer.report.terminal import draw_table

    limits = merge(GateLimits(), given)
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
