"""Techniques change the float model: what is trained is kept in the run folder and shared by all runtimes."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import msgspec

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import require_supported
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Step, canonical_step, digest_of
from quant_explorer.models import load_weights, save_weights
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.techniques import create_technique


class Preparation:
    """Applies the steps of recipes to one subject's float model.

    The last candidate is kept: the next runtime gets the same model, and what it was exported to with it.
    """

    def __init__(self, subject: Subject, run: RunFolder) -> None:
        self.subject, self.run = subject, run
        self._last: tuple[tuple[Step, ...], Candidate] | None = None

    def candidate(self, steps: tuple[Step, ...]) -> Candidate:
        """Return the subject's model with the techniques of `steps` applied in order.

        Raises UnsupportedError with the reason when one of them cannot be applied.
        """
        if self._last is None or self._last[0] != steps:
            self._last = (steps, self._apply(steps))
        return self._last[1]

    def _apply(self, steps: tuple[Step, ...]) -> Candidate:
        candidate = Candidate(self.subject.model, QuantSpec())
        for number, step in enumerate(steps, start=1):
            technique = create_technique(step)
            require_supported(technique.unsupported(candidate))
            if not technique.trains:
                candidate = technique.apply(candidate, self.subject.workbench())
                continue
            name = f"{step.technique}-{self._training_digest(steps[:number])}.safetensors"
            weights = self.run.weights / name
            spec = weights.with_suffix(".spec.json")
            if weights.exists() and spec.exists():
                candidate = _restore(candidate, weights, spec)
                continue
            candidate = technique.apply(candidate, self.subject.workbench())
            write_atomically(spec, msgspec.json.encode(candidate.spec))
            save_weights(candidate.model, weights)
        return candidate

    def _training_digest(self, steps: tuple[Step, ...]) -> str:
        return digest_of(
            {
                "steps": [canonical_step(step) for step in steps],
                "weights": self.subject.weights_digest,
                "training": self.subject.training_digest,
            }
        )


def _restore(candidate: Candidate, weights: Path, spec: Path) -> Candidate:
    model = copy.deepcopy(candidate.model)
    load_weights(model, weights)
    wanted = msgspec.json.decode(spec.read_bytes(), type=QuantSpec)
    return dataclasses.replace(candidate, model=model, spec=wanted)
