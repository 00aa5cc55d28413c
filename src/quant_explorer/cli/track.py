"""`quant-explorer track`: send a recorded run to an experiment tracker."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import run_argument, verbosity_options


@click.command()
@run_argument()
@click.option(
    "--mlflow",
    "uri",
    required=True,
    metavar="URI",
    help="Tracking store: http://host:5000, sqlite:///mlflow.db, or a folder.",
)
@click.option(
    "--experiment",
    default="quant-explorer",
    show_default=True,
    help="Experiment of MLflow; made where it does not exist.",
)
@verbosity_options
def command(run: Path | None, uri: str, experiment: str) -> int:
    """Send RUN, a run folder, to MLflow: parameters and files, and below it a run a variant.

    A variant's figures are metrics, with the ends of their intervals as _low and _high.
    """
    from quant_explorer.cli.job import say
    from quant_explorer.cli.options import resolve
    from quant_explorer.pipeline.run import RunFolder
    from quant_explorer.recorded import Study
    from quant_explorer.report.tracking import track

    folder = RunFolder(run or resolve(None, {})[0])
    study = Study.load(folder.path)
    reports = sorted(folder.report.iterdir()) if folder.report.is_dir() else []
    files = [file for file in (folder.description, folder.study, *reports) if file.is_file()]
    found = track(study.results, files, uri, experiment)
    say(f"Sent {len(study.results.variants)} variants to {uri}, experiment {experiment}, run {found}.")
    return 0
