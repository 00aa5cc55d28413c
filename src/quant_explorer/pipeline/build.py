"""Recipe -> Artifact: techniques change the float model, then a runtime lowers it to files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from quant_explorer.core.artifact import (
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    Manifest,
    atomic_folder,
    list_files,
    write_manifest,
)
from quant_explorer.core.contracts import Batch, Candidate, Runtime
from quant_explorer.core.errors import require_supported
from quant_explorer.core.packages import own_version
from quant_explorer.core.recipe import Provenance, Recipe, digest_of
from quant_explorer.core.settings import MeasurementProtocol
from quant_explorer.metrics.accuracy import check_logits
from quant_explorer.metrics.fidelity import check_fidelity
from quant_explorer.pipeline.measure import start_worker
from quant_explorer.pipeline.messages import Opening
from quant_explorer.pipeline.prepare import Preparation
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker import Worker
from quant_explorer.techniques import TECHNIQUES

# Enough that one image cannot hide a wrong lowering, few enough for the largest model to be quick.
CHECKED_IMAGES = 16


def provenance_of(recipe: Recipe, subject: Subject, runtime: Runtime) -> Provenance:
    """Return what an artifact of `recipe` starts from, as its digest covers it."""
    trains = any(TECHNIQUES[step.technique].trains for step in recipe.steps)
    return Provenance(
        model=subject.model_name,
        weights=subject.weights_digest,
        calibration=subject.dataset.digest,
        training=subject.training_digest if trains else "",
        versions=tuple(sorted((runtime.versions() | own_version()).items())),
        lowering=runtime.version,
        cpu=runtime.cpu_features(),
        target=subject.settings.target,
        preprocessing=digest_of(dataclasses.asdict(subject.spec)),
    )


def create_runtime(recipe: Recipe, runtimes: Mapping[str, type[Runtime]]) -> Runtime:
    """Return the recipe's runtime with the recipe's options."""
    return runtimes[recipe.runtime](**dict(recipe.options))


def build(
    recipe: Recipe, preparation: Preparation, runtime: Runtime, protocol: MeasurementProtocol
) -> Artifact:
    """Return the artifact of a recipe, from the run folder when it was built before.

    Raises UnsupportedError with the reason when a technique or the runtime cannot do it, BuildError
    when the files do not compute what the float model computes, WorkerError when they do not run.
    """
    subject, run = preparation.subject, preparation.run
    provenance = provenance_of(recipe, subject, runtime)
    digest = recipe.digest(provenance)
    folder = run.artifacts / digest
    if (folder / MANIFEST).exists():
        artifact = Artifact.load(folder)
        artifact.verify()
        return artifact
    require_supported(runtime.unavailable())
    candidate = preparation.candidate(recipe.steps)
    require_supported(runtime.unsupported(candidate))
    # Started before what it checks is there: it imports the runtime while this process lowers.
    with start_worker(runtime, recipe.options, run, protocol) as worker, atomic_folder(folder) as temporary:
        lowering = runtime.lower(candidate, subject.calibration, temporary)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            digest=digest,
            recipe=recipe,
            provenance=provenance,
            spec=candidate.spec,
            input=subject.spec,
            classes=subject.dataset.classes,
            files=list_files(temporary),
            options=lowering.options,
            notes=(*candidate.notes, *lowering.notes, *_explain_needs(lowering.needs)),
            needs=lowering.needs,
        )
        write_manifest(temporary, manifest)
        worker.assign(Opening(lowering.options, str(temporary)))
        check_outputs(worker, candidate, subject)
    return Artifact.load(folder)


def _explain_needs(needs: tuple[str, ...]) -> tuple[str, ...]:
    if not needs:
        return ()
    return (f"its figures hold for CPUs with {', '.join(needs)} only",)


def check_outputs(worker: Worker, candidate: Candidate, subject: Subject) -> None:
    """Raise BuildError when what the worker opens does not compute what the model computes.

    Raises WorkerError when it cannot be opened or run at all.
    """
    batch = subject.batch(CHECKED_IMAGES)
    worker.open(batch[:1])
    logits = worker.run(batch)
    check_logits(logits, len(batch), len(subject.dataset.classes))
    check_fidelity(logits, _float_logits(candidate, batch), candidate.spec.precision)


def _float_logits(candidate: Candidate, batch: Batch) -> Batch:
    import torch

    with torch.inference_mode():
        logits: Batch = candidate.model(torch.from_numpy(batch)).numpy()
    return logits
