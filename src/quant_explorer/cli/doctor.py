"""`quant-explorer doctor`: what this machine is, and what will be fast on it."""

from __future__ import annotations

import click

from quant_explorer.cli.options import json_option, verbosity_options


@click.command()
@click.option("--peaks", "with_peaks", is_flag=True, help="Measure arithmetic and memory peaks too (15 s).")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Cores that peaks are measured on.",
)
@verbosity_options
@json_option
def command(with_peaks: bool, threads: int, as_json: bool) -> int:
    """Show CPU, instruction sets, cores, memory, versions, and which precisions will be fast and why."""
    from quant_explorer.cli.console import ConsoleProgress
    from quant_explorer.cli.session import print_figures
    from quant_explorer.datasets.cache import default_cache_dir
    from quant_explorer.machine.kept_peaks import measure_and_keep
    from quant_explorer.pipeline.doctor import describe_peaks, examine

    # Measured first: an error in the options is told before anything else takes time.
    peaks = (
        describe_peaks(measure_and_keep(threads, ConsoleProgress(), default_cache_dir()))
        if with_peaks
        else ()
    )
    facts = (*examine(), *peaks)
    rows = [{"what": fact.what, "finding": fact.finding, "why": fact.why} for fact in facts]
    print_figures(rows, as_json=as_json, title="This machine")
    return 0
