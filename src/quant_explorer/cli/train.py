"""`quant-explorer train`: the FP32 baseline only."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import json_option, run_options
from quant_explorer.core.settings.declaration import Value


@click.command()
@run_options
@json_option
def command(run_dir: Path | None, as_json: bool, **given: Value) -> int:
    """Train the FP32 baseline; stopped, it goes on from the last epoch.

    The accuracy it prints is that of the search split; the report split is left to the measured artifact.
    """
    from quant_explorer.cli.job import open_job, print_figures
    from quant_explorer.pipeline.subject import load_subject
    from quant_explorer.pipeline.training.trainer import Trainer

    with open_job(run_dir, given) as job:
        settings = job.wanted.settings
        subject = load_subject(settings, job.run, job.progress)
        trainer = Trainer(subject.dataset, subject.spec, settings.seed, job.progress)
        row = {
            "model": subject.model_name,
            "data": settings.data,
            "train_images": len(subject.dataset.train),
            "search_images": len(subject.dataset.search),
            "search_top1": round(trainer.accuracy(subject.model, subject.dataset.search), 4),
            "weights": str(settings.weights or job.run.weights),
        }
        print_figures([row], as_json=as_json, title="Trained")
    return 0
