"""Recipe -> Artifact: techniques change the float model, then a runtime lowers it to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from quant_explorer.core.artifact import (
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    Manifest,
    atomic_folder,
    list_files,
    write_manifest,
)
from quant_explorer.core.contracts import Lowering, Runtime
from quant_explorer.core.errors import (
    BuildError,
    FidelityError,
    UnsupportedError,
    WorkerError,
    require_supported,
)
from quant_explorer.core.host.packages import own_version
from quant_explorer.core.recipe import Provenance, Recipe
from quant_explorer.metrics.fidelity import Fidelity, describe_fidelity
from quant_explorer.pipeline.building.bisection import find_layer, keep_float, quantized_layers
from quant_explorer.pipeline.building.expectation import Expectation
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker.messages import Opening
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.techniques import TECHNIQUES, library_versions


def provenance_of(recipe: Recipe, subject: Subject, runtime: Runtime) -> Provenance:
    """Return what an artifact of `recipe` starts from, as its digest covers it."""
    trains = any(TECHNIQUES[step.technique].trains for step in recipe.steps)
    versions = runtime.versions() | library_versions(recipe.steps) | own_version()
    return Provenance(
        model=subject.model_name,
        weights=subject.weights_digest,
        calibration=subject.dataset.digest,
        training=subject.training_digest if trains else "",
        versions=tuple(sorted(versions.items())),
        lowering=runtime.version,
        # They are asked of its libraries. One that lacks them builds nothing that a digest could name.
        cpu=() if runtime.unavailable() else runtime.cpu_features(),
        target=subject.settings.target,
        preprocessing=subject.spec.digest,
    )


def create_runtime(recipe: Recipe, runtimes: Mapping[str, type[Runtime]]) -> Runtime:
    """Return the recipe's runtime with the recipe's options."""
    return runtimes[recipe.runtime](**dict(recipe.options))


def build(recipe: Recipe, preparation: Preparation, runtime: Runtime) -> Artifact:
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
    try:
        _write(folder, recipe, provenance, preparation, runtime)
    except FidelityError as error:
        raise BuildError(f"{error}{_explain_layer(recipe, preparation, runtime)}") from error
    return Artifact.load(folder)


def _write(
    folder: Path,
    recipe: Recipe,
    provenance: Provenance,
    preparation: Preparation,
    runtime: Runtime,
) -> None:
    subject, experiment = preparation.subject, preparation.experiment
    candidate = preparation.candidate(recipe.steps)
    # Started before what it checks is there: it imports the runtime while this process lowers.
    with experiment.start_worker(runtime, recipe.options) as worker, atomic_folder(folder) as temporary:
        lowering = runtime.lower(candidate, subject.calibration, temporary)
        files = list_files(temporary)
        found = check_files(worker, lowering, temporary, preparation.expectation(recipe.steps))
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            digest=folder.name,
            recipe=recipe,
            provenance=provenance,
            spec=candidate.spec,
            input=subject.spec,
            classes=subject.dataset.classes,
            files=files,
            options=lowering.options,
            notes=(
                *candidate.notes,
                *lowering.notes,
                *_explain_float_layers(candidate.spec.float_layers),
                *_explain_needs(lowering.needs),
                *([describe_fidelity(found)] if found else []),
            ),
            needs=lowering.needs,
        )
        write_manifest(temporary, manifest)


def check_files(
    worker: Worker, lowering: Lowering, folder: Path, expectation: Expectation
) -> tuple[Fidelity, ...]:
    """Return how near the files come to the model they were made from, as a worker runs them.

    Raises FidelityError when that is not near enough, WorkerError when they cannot be opened or run at all.
    """
    worker.assign(Opening(lowering.options, str(folder)))
    worker.open(expectation.image)
    return expectation.check(worker.run, lowering.grid)


def _explain_layer(recipe: Recipe, preparation: Preparation, runtime: Runtime) -> str:
    """Say which layer makes INT8 files wrong, as far as lowering with layers in float can tell."""
    subject, experiment = preparation.subject, preparation.experiment
    candidate = preparation.candidate(recipe.steps)
    if candidate.spec.precision != "int8":
        return ""

    def passes(layers: Sequence[str]) -> bool:
        trial = keep_float(candidate, layers)
        require_supported(runtime.unsupported(trial))
        expectation = Expectation(trial, subject.calibration)
        with (
            experiment.start_worker(runtime, recipe.options) as worker,
            TemporaryDirectory(dir=experiment.run.path) as folder,
        ):
            lowering = runtime.lower(trial, subject.calibration, Path(folder))
            try:
                check_files(worker, lowering, Path(folder), expectation)
            except FidelityError:
                return False
        return True

    try:
        layer = find_layer(quantized_layers(candidate), passes)
    except (BuildError, UnsupportedError, WorkerError) as error:
        return f". Which layer it is cannot be found by keeping layers in float ({error})"
    if layer is None:
        return (
            ". They are still off with all layers in float, so the fault is in an operator that is no layer"
        )
    return f". It is layer {layer!r}: with it in float, and the layers before it, the outputs are near enough"


def _explain_float_layers(layers: Sequence[str]) -> tuple[str, ...]:
    if not layers:
        return ()
    return (f"left in float, as --float-layer asks: {', '.join(layers)}",)


def _explain_needs(needs: tuple[str, ...]) -> tuple[str, ...]:
    if not needs:
        return ()
    return (f"its figures hold for CPUs with {', '.join(needs)} only",)
