"""`quant-explorer quantize`: build artifacts, without measuring them."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import config_option, json_option, run_options, runtime_option
from quant_explorer.core.recipe import BASELINE_RUNTIME
from quant_explorer.core.settings.declaration import Value


@click.command()
@config_option(required=True)
@runtime_option(BASELINE_RUNTIME)
@run_options
@json_option
def command(
    run_dir: Path | None,
    configs: tuple[str, ...],
    runtimes: tuple[str, ...],
    as_json: bool,
    **given: Value,
) -> int:
    """Build the artifacts of configurations (training the baseline first where it is not trained)."""
    return build_configs(run_dir, configs, runtimes, given, as_json=as_json)


def build_configs(
    run_dir: Path | None,
    configs: tuple[str, ...],
    runtimes: tuple[str, ...],
    given: dict[str, Value],
    *,
    as_json: bool,
) -> int:
    """Build and list the artifacts of `configs` on `runtimes`."""
    from quant_explorer.cli.job import exit_code, open_job, print_figures
    from quant_explorer.pipeline.explore import Until

    with open_job(run_dir, given) as job:
        outcome = job.explore(configs, runtimes, until=Until.BUILT)
        rows = [
            {
                "name": contender.measurement.variant.name,
                "digest": contender.digest,
                "size_bytes": sum(file.bytes for file in contender.artifact.files),
                "folder": str(contender.artifact.folder),
            }
            for contender in outcome.contenders
        ]
        print_figures(rows, as_json=as_json, title="Artifacts")
    return exit_code(outcome)
