"""`quant-explorer multi-bench`: models x configurations, a frontier within each model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from quant_explorer.cli.options import (
    MULTI,
    all_option,
    config_option,
    json_option,
    models_option,
    multi_options,
    runtime_option,
)
from quant_explorer.core.recipe import BASELINE_CONFIG, BASELINE_RUNTIME
from quant_explorer.core.settings.declaration import Value
from quant_explorer.core.settings.groups import MeasurementProtocol

# Fine-tuning is left out: it means hours at 224 pixels, and nothing for a model without accuracy.
CONFIGS = (BASELINE_CONFIG, "dynamic_int8", "static_int8_per_tensor", "static_int8_per_channel")
PROTOCOL = MeasurementProtocol(batch_sizes=(1,))


@click.command()
@models_option("Models.", unset="all that `list` shows")
@config_option(required=False, unset=",".join(CONFIGS))
@runtime_option(BASELINE_RUNTIME)
@partial(multi_options, protocol=PROTOCOL)
@all_option
@json_option
def command(
    run_dir: Path | None,
    models: tuple[str, ...],
    configs: tuple[str, ...],
    runtimes: tuple[str, ...],
    everything: bool,
    as_json: bool,
    batch_sizes: tuple[int, ...] | None,
    **given: Value,
) -> int:
    """Build and measure several models, and rank the variants within each.

    A model that takes the data set's own image size is trained on it and has accuracy; one that
    takes 224 pixels is not, and is compared by its agreement with FP32 on real images.
    """
    from quant_explorer.cli.job import Shown, exit_code, open_job, write_and_show
    from quant_explorer.models import MODELS
    from quant_explorer.pipeline.explore import Until
    from quant_explorer.pipeline.subject import takes_image_size

    trains = {model: takes_image_size(model) for model in models or MODELS}
    given = {**given, "model": MULTI, "batch_sizes": batch_sizes or PROTOCOL.batch_sizes}
    failed = 0
    with open_job(run_dir, given) as job:
        for model, train in trains.items():
            job.progress.say(f"{model}:")
            outcome = job.explore(configs or CONFIGS, runtimes, until=Until.TIMED, model=model, train=train)
            failed = max(failed, exit_code(outcome))
        shown = Shown(as_json=as_json, everything=everything)
        write_and_show(job.run, job.study, job.wanted, given, shown, multi=True)
    return failed
