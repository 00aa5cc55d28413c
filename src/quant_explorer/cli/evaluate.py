"""`quant-explorer evaluate`: size, memory, accuracy and executed precision, without latency."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import (
    config_option,
    json_option,
    protocol_options,
    rules_options,
    run_options,
    runtime_option,
)
from quant_explorer.core.recipe import BASELINE_RUNTIME
from quant_explorer.core.settings.declaration import Value


@click.command()
@config_option(required=True)
@runtime_option(BASELINE_RUNTIME)
@protocol_options
@rules_options
@run_options
@json_option
def command(
    run_dir: Path | None,
    configs: tuple[str, ...],
    runtimes: tuple[str, ...],
    as_json: bool,
    **given: Value,
) -> int:
    """Score configurations on the report split, from their saved files in a fresh process."""
    return measure_configs(run_dir, configs, runtimes, given, timed=False, as_json=as_json)


def measure_configs(
    run_dir: Path | None,
    configs: tuple[str, ...],
    runtimes: tuple[str, ...],
    given: dict[str, Value],
    *,
    timed: bool,
    as_json: bool,
) -> int:
    """Measure `configs` on `runtimes` and show the report of the run so far."""
    from quant_explorer.cli.job import Shown, exit_code, open_job, write_and_show
    from quant_explorer.pipeline.explore import Until

    with open_job(run_dir, given) as job:
        outcome = job.explore(configs, runtimes, until=Until.TIMED if timed else Until.MEASURED)
        shown = Shown(as_json=as_json, everything=True)
        write_and_show(job.run, job.study, job.wanted, given, shown, multi=False)
    return exit_code(outcome)
