"""Recipe -> Artifact: techniques change the float model, then a runtime lowers it to files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import msgspec

from quant_explorer.core.artifact import (
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    Manifest,
    atomic_folder,
    list_files,
    write_atomically,
    write_manifest,
)
from quant_explorer.core.contracts import Candidate, Runtime
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Provenance, Recipe, Step, canonical_step, digest_of
from quant_explorer.models import load_weights, save_weights
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.techniques import TECHNIQUES, create_technique


def provenance_of(recipe: Recipe, subject: Subject, runtime: Runtime) -> Provenance:
    """Return what an artifact of `recipe` starts from, as its digest covers it."""
    trains = any(TECHNIQUES[step.technique].trains for step in recipe.steps)
    return Provenance(
        model=subject.model_name,
        weights=subject.weights_digest,
        calibration=subject.dataset.digest,
        training=subject.training_digest if trains else "",
        versions=tuple(sorted(runtime.versions().items())),
    )


def create_runtime(recipe: Recipe, runtimes: Mapping[str, type[Runtime]]) -> Runtime:
    """Return the recipe's runtime with the recipe's options."""
    return runtimes[recipe.runtime](**dict(recipe.options))


def build(recipe: Recipe, subject: Subject, run: RunFolder, runtime: Runtime) -> Artifact:
    """Return the artifact of a recipe, from the run folder when it was built before.

    Raises UnsupportedError with the reason when a technique or the runtime cannot do it, BuildError
    when the result is not what it should be.
    """
    provenance = provenance_of(recipe, subject, runtime)
    digest = recipe.digest(provenance)
    folder = run.artifacts / digest
    if (folder / MANIFEST).exists():
        artifact = Artifact.load(folder)
        artifact.verify()
        return artifact
    _require(runtime.unavailable())
    candidate = prepare_candidate(recipe.steps, subject, run)
    _require(runtime.unsupported(candidate))
    with atomic_folder(folder) as temporary:
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
            notes=lowering.notes,
        )
        write_manifest(temporary, manifest)
    return Artifact.load(folder)


def prepare_candidate(steps: tuple[Step, ...], subject: Subject, run: RunFolder) -> Candidate:
    """Apply the techniques of `steps` in order; trained weights are kept and shared by all runtimes."""
    candidate = Candidate(subject.model, QuantSpec())
    for number, step in enumerate(steps, start=1):
        technique = create_technique(step)
        _require(technique.unsupported(candidate))
        if not technique.trains:
            candidate = technique.apply(candidate, subject.workbench())
            continue
        weights = run.weights / f"{step.technique}-{_training_digest(steps[:number], subject)}.safetensors"
        spec = weights.with_suffix(".spec.json")
        if weights.exists() and spec.exists():
            candidate = _restore(candidate, weights, spec)
            continue
        candidate = technique.apply(candidate, subject.workbench())
        write_atomically(spec, msgspec.json.encode(candidate.spec))
        save_weights(candidate.model, weights)
    return candidate


def _training_digest(steps: tuple[Step, ...], subject: Subject) -> str:
    return digest_of(
        {
            "steps": [canonical_step(step) for step in steps],
            "weights": subject.weights_digest,
            "training": subject.training_digest,
        }
    )


def _restore(candidate: Candidate, weights: Path, spec: Path) -> Candidate:
    model = copy.deepcopy(candidate.model)
    load_weights(model, weights)
    return Candidate(model, msgspec.json.decode(spec.read_bytes(), type=QuantSpec))


def _require(reason: str | None) -> None:
    if reason is not None:
        raise UnsupportedError(reason)
