"""Results -> MLflow: a run with its parameters and files, and below it a run a variant with its figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.errors import StorageError, explain, require_supported
from quant_explorer.core.host.packages import explain_missing
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.declaration import declared_of
from quant_explorer.report.answer import describe_answer
from quant_explorer.report.flat import figures_of, flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient

# The tag by which MLflow nests runs.
PARENT = "mlflow.parentRunId"


def track(results: Results, files: Sequence[Path], uri: str, experiment: str) -> str:
    """Send results to the MLflow store at `uri`, with `files` as artifacts, and return the id of the run.

    The results of other environments are left to runs of their own. Raises UnsupportedError with the command
    that installs MLflow when it is missing, and StorageError when the store refuses.
    """
    require_supported(explain_missing("mlflow", "mlflow"))
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return _send(MlflowClient(tracking_uri=uri), results, files, experiment)
    except (MlflowException, OSError) as error:
        raise StorageError(f"{uri}: MLflow refused the run ({explain(error)})") from error


def _send(client: MlflowClient, results: Results, files: Sequence[Path], experiment: str) -> str:
    from mlflow.entities import Param

    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known else client.create_experiment(experiment)
    title = f"{results.run.settings.data}, {', '.join(results.models)}"
    answers = " ".join(describe_answer(results, model) for model in results.models)
    run = client.create_run(
        place,
        run_name=title,
        tags={"mlflow.note.content": answers, "environment": results.environment.digest},
    ).info.run_id
    client.log_batch(run, params=[Param(name, value) for name, value in _parameters(results)])
    for file in files:
        client.log_artifact(run, str(file))
    for variant in results.variants:
        _send_variant(client, variant, place, run)
    client.set_terminated(run)
    return str(run)


def _send_variant(client: MlflowClient, variant: VariantResult, place: str, parent: str) -> None:
    from mlflow.entities import Metric, Param

    figures = figures_of(variant)
    names = {name: value for name, value in flatten(variant).items() if name not in figures}
    run = client.create_run(place, run_name=variant.name, tags={PARENT: parent}).info.run_id
    now_ms = int(time.time() * 1000)
    client.log_batch(
        run,
        params=[Param(name, str(value)) for name, value in names.items() if value not in (None, "")],
        metrics=[
            Metric(name, float(value), now_ms, 0) for name, value in figures.items() if value is not None
        ],
    )
    client.set_terminated(run, "FINISHED" if variant.status is Status.OK else "FAILED")


def _parameters(results: Results) -> Iterator[tuple[str, str]]:
    """What was asked for, by the names of the options, and where it was measured."""
    for group in (results.run.settings, results.run.protocol, results.run.rules):
        for declared in declared_of(group):
            yield declared.option.removeprefix("--"), declared.default_text
    yield "cpu", results.environment.cpu
    yield "data_digest", results.run.data_digest or "not recorded"
    yield "quant_explorer", results.run.version or "not recorded"
