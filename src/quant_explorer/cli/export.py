"""`quant-explorer export`: one variant as a folder that runs without this package."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import run_dir_option, verbosity_options


@click.command()
@click.argument("variant")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder that is new or empty.",
)
@run_dir_option
@click.option("--model", metavar="NAME", help="Model that the variant is of, where the run has several.")
@click.option("--check", "checked", is_flag=True, help="Open it in a fresh process, and compare its outputs.")
@verbosity_options
def command(variant: str, folder: Path, run_dir: Path | None, model: str | None, checked: bool) -> int:
    """Export VARIANT, as in static_int8_per_channel@onnxruntime, from what was recorded.

    DIR gets the files as they were measured, a model card, pre-processing as JSON, class names, predict.py
    with its requirements.txt, and a SHA-256 of each.
    """
    from quant_explorer.analysis.rank import gather_candidates, order_environments
    from quant_explorer.analysis.statement import state
    from quant_explorer.cli.job import recall, say
    from quant_explorer.cli.options import resolve
    from quant_explorer.pipeline.export.folder import (
        find_artifact,
        find_deployment,
        is_decoded_whole,
        write_export,
    )
    from quant_explorer.pipeline.run import RunFolder
    from quant_explorer.report.export.render import render_export

    path = run_dir or resolve(None, {})[0]
    study, info = recall(path)
    environment = order_environments(study, info)[0]
    statement = state(gather_candidates(study, info), info, environment, variant, model)
    artifact = find_artifact(RunFolder(path), statement.measurement)
    files = render_export(
        statement,
        artifact.manifest,
        find_deployment(statement.variant.runtime),
        decoded_whole=is_decoded_whole(info.settings.data),
    )
    write_export(folder, artifact, files, _check if checked else None)
    say(f"{folder}: {variant}. Run it: python {folder / 'predict.py'} IMAGE")
    return 0


def _check(folder: Path) -> None:
    from quant_explorer.cli.console import ConsoleProgress
    from quant_explorer.pipeline.export.check import check_export

    check_export(folder, ConsoleProgress())
