"""`quant-explorer pipeline`: the whole job, from a data set to the Pareto report."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import (
    all_option,
    config_option,
    json_option,
    protocol_options,
    rules_options,
    run_options,
    runtime_option,
)
from quant_explorer.core.settings.declaration import Value

# A minute or two: enough to see every part run, too little to believe a figure.
TINY: dict[str, Value] = {
    "train_subset": 200,
    "test_subset": 200,
    "epochs": 1,
    "rounds": 2,
    "time_limit_s": 1.0,
}


@click.command()
@click.option("--tiny", is_flag=True, help="200 images, 1 epoch: does it run here?")
@config_option(required=False)
@runtime_option("all")
@protocol_options
@rules_options
@run_options
@all_option
@json_option
def command(
    run_dir: Path | None,
    configs: tuple[str, ...],
    runtimes: tuple[str, ...],
    tiny: bool,
    everything: bool,
    as_json: bool,
    **given: Value,
) -> int:
    """Train, build every variant, measure each from its files, and write the Pareto report.

    A run that was stopped goes on where it was; what was recorded is not done again.
    """
    from quant_explorer.cli.job import Shown, exit_code, open_job, write_and_show
    from quant_explorer.pipeline.explore import Until
    from quant_explorer.pipeline.plan.space import CONFIGURATIONS

    if tiny:
        given = {name: TINY.get(name) if value is None else value for name, value in given.items()}
    with open_job(run_dir, given, suffix="-tiny" if tiny else "") as job:
        outcome = job.explore(configs or CONFIGURATIONS, runtimes, until=Until.TIMED)
        shown = Shown(as_json=as_json, everything=everything)
        write_and_show(job.run, job.study, job.wanted, given, shown, multi=False)
    return exit_code(outcome)
