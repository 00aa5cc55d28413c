"""`quant-explorer doctor`: what this machine is, and what will be fast on it."""

from __future__ import annotations

import click

from quant_explorer.cli.options import json_option, verbosity_options


@click.command()
@verbosity_options
@json_option
def command(as_json: bool) -> int:
    """Show CPU, instruction sets, cores, memory, versions, and which precisions will be fast and why."""
    from quant_explorer.cli.session import print_figures
    from quant_explorer.pipeline.doctor import examine

    rows = [{"what": fact.what, "finding": fact.finding, "why": fact.why} for fact in examine()]
    print_figures(rows, as_json=as_json, title="This machine")
    return 0
