"""`quant-explorer bench`: all figures of some configurations, latency included."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.evaluate import measure_configs
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
    """Time configurations against the FP32 baseline and its A/A twin, in interleaved rounds."""
    return measure_configs(run_dir, configs, runtimes, given, timed=True, as_json=as_json)
