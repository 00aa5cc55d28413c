"""`quant-explorer doctor`: what this machine is, and what to expect of INT8 on it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from quant_explorer.cli.options import json_option, runtime_option, threads_option, verbosity_options
from quant_explorer.core.settings.declaration import merge
from quant_explorer.core.settings.groups import MeasurementProtocol


@click.command()
@click.option("--quick", is_flag=True, help="Do not measure INT8 against FP32 (one to two minutes).")
@runtime_option("all")
@click.option("--peaks", "with_peaks", is_flag=True, help="Measure arithmetic and memory peaks too (15 s).")
@threads_option("Cores that INT8 and peaks are measured on.")
@verbosity_options
@json_option
def command(
    quick: bool, runtimes: tuple[str, ...], with_peaks: bool, threads: int | None, as_json: bool
) -> int:
    """Show CPU, cores, memory, versions, and by a short measurement how fast INT8 is in each runtime."""
    from quant_explorer.cli.console import ConsoleProgress, divert_libraries
    from quant_explorer.cli.job import print_figures
    from quant_explorer.datasets.cache import default_cache_dir
    from quant_explorer.machine.peaks.kept import measure_and_keep
    from quant_explorer.pipeline.doctor.diagnosis import describe_peaks, examine, expect_int8
    from quant_explorer.pipeline.plan.space import choose_runtimes
    from quant_explorer.runtimes import RUNTIMES

    cores = merge(MeasurementProtocol(), {"threads": threads}).threads
    progress = ConsoleProgress()
    chosen = choose_runtimes(runtimes, RUNTIMES)
    with tempfile.TemporaryDirectory() as folder, divert_libraries(Path(folder) / "log.txt"):
        # Measured first: an error in the options is reported before anything else takes time.
        measured = (
            *(describe_peaks(measure_and_keep(cores, progress, default_cache_dir())) if with_peaks else ()),
            *(() if quick else expect_int8(chosen, cores, progress)),
        )
        facts = (*examine(chosen), *measured)
    rows = [{"what": fact.what, "finding": fact.finding, "why": fact.why} for fact in facts]
    print_figures(rows, as_json=as_json, title="This machine")
    return 0
