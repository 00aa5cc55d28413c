"""Techniques change the float model: what is trained is kept in the run folder and shared by all runtimes."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.contracts import Candidate
from quant_explorer.core.difference import facts_of_techniques
from quant_explorer.core.errors import require_supported
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Step, canonical_step, digest_of
from quant_explorer.models import load_weights, save_weights
from quant_explorer.pipeline.building.expectation import Expectation
from quant_explorer.pipeline.building.origin import Origin
from quant_explorer.pipeline.damage import explain_damage
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.subject import explain_untrainable
from quant_explorer.techniques import create_technique, library_versions
from quant_explorer.tracing.plain import make_plain


@dataclass(frozen=True)
class _Trained:
    """What a technique that trains gave beside the weights."""

    spec: QuantSpec
    notes: tuple[str, ...]


class Preparation:
    """Applies the steps of recipes to the float model of one experiment.

    The last candidate is kept, and what it was on its way there: the next runtime gets the same model, and
    so does the next precision, with what the model was exported to for the last.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.subject, self.run = experiment.subject, experiment.run
        self._plain = make_plain(self.subject.model)
        self._last: dict[tuple[Step, ...], Candidate] = {}
        self._expected: tuple[tuple[Step, ...], Expectation] | None = None

    def candidate(self, steps: tuple[Step, ...]) -> Candidate:
        """Return the subject's model with the techniques of `steps` applied in order.

        Raises UnsupportedError with the reason when one of them cannot be applied.
        """
        candidate = Candidate(self._plain, QuantSpec(target=self.subject.settings.target))
        kept: dict[tuple[Step, ...], Candidate] = {}
        for number in range(1, len(steps) + 1):
            done = steps[:number]
            candidate = self._last[done] if done in self._last else self._apply_last(candidate, done)
            kept[done] = candidate
        self._last = kept
        return candidate

    def expectation(self, steps: tuple[Step, ...]) -> Expectation:
        """Return what files of the candidate of `steps` must compute; the last one is kept."""
        if self._expected is None or self._expected[0] != steps:
            self._expected = steps, Expectation(self.candidate(steps), self.subject.calibration)
        return self._expected[1]

    def _apply_last(self, candidate: Candidate, steps: tuple[Step, ...]) -> Candidate:
        technique = create_technique(steps[-1])
        require_supported(technique.unsupported(candidate))
        if not technique.trains:
            return technique.apply(candidate, self.subject.workbench())
        weights = self.weights_file(steps)
        spec = weights.with_suffix(".spec.json")
        if weights.exists() and spec.exists():
            return _restore(candidate, weights, spec)
        require_supported(explain_untrainable(self.subject.dataset))
        trained = technique.apply(candidate, self.subject.workbench())
        write_atomically(spec, msgspec.json.encode(_Trained(trained.spec, trained.notes)))
        self.origin(steps).write(weights)
        save_weights(trained.model, weights)
        return trained

    def weights_file(self, steps: tuple[Step, ...]) -> Path:
        """Where the weights are kept that the last of `steps` trains."""
        digest = digest_of(
            {
                "steps": [canonical_step(step) for step in steps],
                "weights": self.subject.weights_digest,
                "training": self.subject.training_digest,
                **library_versions(steps),
            }
        )
        return self.run.weights / f"{steps[-1].technique}-{digest}.safetensors"

    def origin(self, steps: tuple[Step, ...]) -> Origin:
        """What the weights are made of that the last of `steps` trains."""
        subject = self.subject
        made = ", ".join((subject.model_name, *(step.describe() for step in steps)))
        return Origin(
            made,
            {
                **subject.training_facts,
                **library_versions(steps),
                **facts_of_techniques(steps),
                "float weights": subject.weights_digest,
            },
        )


def _restore(candidate: Candidate, weights: Path, spec: Path) -> Candidate:
    model = copy.deepcopy(candidate.model)
    with explain_damage(weights):
        load_weights(model, weights)
    with explain_damage(spec):
        trained = msgspec.json.decode(spec.read_bytes(), type=_Trained)
    spec_here = dataclasses.replace(trained.spec, target=candidate.spec.target)
    return dataclasses.replace(candidate, model=model, spec=spec_here, notes=trained.notes)
