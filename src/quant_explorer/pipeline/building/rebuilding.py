"""What a run folder holds of the same recipes by another version, which is made again: one line a kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from quant_explorer.core.artifact import MANIFEST, Artifact, Manifest
from quant_explorer.core.difference import (
    Difference,
    Facts,
    describe_changes,
    facts_of_environment,
    facts_of_provenance,
    find_differences,
    find_least_differences,
)
from quant_explorer.core.errors import StudyError
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Measurement, Status, Variant
from quant_explorer.core.recipe import Provenance, Recipe, Step
from quant_explorer.core.study import StudyFile
from quant_explorer.core.units import format_count
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.techniques import TECHNIQUES

Wanted = Mapping[Recipe, Provenance]


def explain_retraining(wanted: Wanted, preparation: Preparation) -> Iterator[str]:
    """Say which fine-tuned weights are trained again, although the folder has those of the same steps."""
    found: list[tuple[Difference, ...]] = []
    for steps in dict.fromkeys(steps for recipe in wanted for steps in _trained(recipe.steps)):
        if not preparation.weights_file(steps).exists():
            earlier = preparation.run.weights.glob(f"{steps[-1].technique}-*.safetensors")
            differences = preparation.origin(steps).differences(earlier)
            if differences is not None:
                found.append(differences)
    if found:
        why = describe_changes(itertools.chain.from_iterable(found))
        yield f"Fine-tuning {format_count(len(found), 'model')} again: {why}."


def explain_rebuilding(wanted: Wanted, artifacts: Path) -> Iterator[str]:
    """Say which artifacts are built again, although the folder has those of the same recipe."""
    earlier: dict[object, list[Facts]] = {}
    for manifest in _manifests(artifacts):
        facts = facts_of_provenance(manifest.recipe, manifest.provenance)
        earlier.setdefault(_identity(manifest.recipe, manifest.provenance), []).append(facts)
    found = [
        find_least_differences(earlier[identity], facts_of_provenance(recipe, provenance))
        for recipe, provenance in wanted.items()
        if not (artifacts / recipe.digest(provenance) / MANIFEST).exists()
        and (identity := _identity(recipe, provenance)) in earlier
    ]
    if found:
        why = describe_changes(itertools.chain.from_iterable(found))
        yield f"Building {format_count(len(found), 'variant')} again: {why}."


def explain_remeasuring(
    variants: Sequence[Variant], study: StudyFile, environment: Environment
) -> Iterator[str]:
    """Say which variants are measured again, although the study has them, on as many threads."""
    measured: dict[str, set[tuple[str, str]]] = {}
    for record in study.records:
        if isinstance(record, Measurement) and record.status is Status.OK:
            measured.setdefault(record.environment, set()).add((record.variant.model, record.variant.name))
    done = study.finished(environment.digest)
    wanted = {(variant.model, variant.name) for variant in variants if variant.digest not in done}
    for earlier in reversed(study.visits):
        again = wanted & measured.get(earlier.digest, set())
        if again and earlier.threads == environment.threads and earlier != environment:
            found = find_differences(facts_of_environment(earlier), facts_of_environment(environment))
            yield f"Measuring {format_count(len(again), 'variant')} again: {describe_changes(found)}."
            return


def _trained(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Yield the steps up to each one that trains."""
    for number, step in enumerate(steps, start=1):
        if TECHNIQUES[step.technique].trains:
            yield steps[:number]


def _identity(recipe: Recipe, provenance: Provenance) -> object:
    """What an artifact is of, in every version."""
    steps = tuple((step.technique, step.parameters) for step in recipe.steps)
    return provenance.model, steps, recipe.runtime, recipe.options, provenance.target


def _manifests(artifacts: Path) -> Iterator[Manifest]:
    for path in sorted(artifacts.glob(f"*/{MANIFEST}")):
        try:
            yield Artifact.load(path.parent).manifest
        except StudyError:
            # Of a schema that this version does not read: it cannot be compared with.
            continue
