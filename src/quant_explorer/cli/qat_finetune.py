"""`quant-explorer qat-finetune`: quantization-aware training of this run's own baseline."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import json_option, run_options, runtime_option
from quant_explorer.cli.quantize import build_configs
from quant_explorer.core.recipe import BASELINE_RUNTIME, CONTROL_CONFIG
from quant_explorer.core.settings.declaration import Value


@click.command()
@runtime_option(BASELINE_RUNTIME)
@run_options
@json_option
def command(run_dir: Path | None, runtimes: tuple[str, ...], as_json: bool, **given: Value) -> int:
    """Fine-tune with fake quantization, and in FP32 for as long as its control; build both."""
    return build_configs(run_dir, ("qat_int8", CONTROL_CONFIG), runtimes, given, as_json=as_json)
