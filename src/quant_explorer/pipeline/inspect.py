"""Float model -> cost, machine -> peaks: what a roofline needs beside the measurements."""

from __future__ import annotations

from collections.abc import Iterable

from quant_explorer.core.cost.records import FloatModel, MachinePeaks
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import Recipe, Step, canonical_step, digest_of
from quant_explorer.core.study import StudyFile
from quant_explorer.datasets.cache import default_cache_dir
from quant_explorer.machine.peaks.kept import load_or_measure
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.workload.model_cost import analyze_model

# Techniques that change which layers there are; the others change weights or ask for a precision.
_SHAPING = ("prune",)


def inspect_models(recipes: Iterable[Recipe], preparation: Preparation, study: StudyFile) -> None:
    """Record the cost of every float model that the recipes are made of and the study does not know.

    A model that cannot be made (its technique says why when it is built), or counted, is left out.
    """
    subject = preparation.subject
    wanted = dict.fromkeys(_shape(recipe) for recipe in recipes)
    for steps in wanted:
        described = tuple(step.describe() for step in steps)
        digest = digest_of(
            {"steps": [canonical_step(step) for step in steps], "weights": subject.weights_digest}
        )
        known = study.float_model(subject.model_name, described)
        if known is not None and (known.steps, known.digest) == (described, digest):
            continue
        try:
            candidate = preparation.candidate(steps)
            cost = analyze_model(candidate.model, subject.spec.shape)
        except UnsupportedError:
            continue
        study.append(FloatModel(subject.model_name, described, cost, candidate.channels, digest))


def inspect_machine(study: StudyFile, environment: Environment, progress: Progress) -> None:
    """Record the machine's peaks, unless the study has them; nothing else may compute meanwhile."""
    if study.peaks(environment.digest) is None:
        peaks = load_or_measure(environment.threads, progress, default_cache_dir())
        study.append(MachinePeaks(environment.digest, peaks))


def _shape(recipe: Recipe) -> tuple[Step, ...]:
    """Return the steps up to the last that changes the shape of the model."""
    last = max((i for i, step in enumerate(recipe.steps, 1) if step.technique in _SHAPING), default=0)
    return recipe.steps[:last]
