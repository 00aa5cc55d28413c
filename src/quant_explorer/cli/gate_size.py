"""`quant-explorer gate-size`: fail a CI job when quantization no longer pays or no longer happens."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from quant_explorer.cli.console import EXIT_FAILED, output
from quant_explorer.cli.options import json_option, models_option, verbosity_options


@click.command()
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@models_option("Models that must be there.", unset="those that are")
@verbosity_options
@json_option
def command(results: Path, models: tuple[str, ...], as_json: bool) -> int:
    """Check the static INT8 cells of RESULTS, a multi_results.json.

    Exit 1 when a cell is missing, is over 50 % of its model's FP32 size, or ran less than 0.9 of its
    multiply-accumulates in INT8; exit 2 when the file cannot be read.
    """
    from quant_explorer.analysis.decide.gate import gate_size
    from quant_explorer.cli.job import print_figures
    from quant_explorer.report.render import load_results

    violations = gate_size(load_results(results), models=models or None)
    if as_json or violations:
        print_figures([asdict(violation) for violation in violations], as_json=as_json, title="Violations")
    elif not violations:
        output.print("every static INT8 cell is small enough and really ran in INT8")
    return EXIT_FAILED if violations else 0
