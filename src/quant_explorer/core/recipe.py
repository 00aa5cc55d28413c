"""Recipe: what is done to a float model, for which runtime. Frozen, canonical, named by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from quant_explorer.core.quantspec import Target

ParameterValue = str | int | float | bool

# The variant that all others are compared with; its configuration is on every runtime.
BASELINE_CONFIG = "fp32_baseline"
BASELINE_RUNTIME = "eager"
BASELINE = f"{BASELINE_CONFIG}@{BASELINE_RUNTIME}"
# The float model, trained for as long as the variants that are fine-tuned.
CONTROL_CONFIG = "fp32_finetune"


@dataclass(frozen=True)
class Step:
    """One technique with its parameters.

    `parameters` holds only those that differ from the technique's defaults, sorted by name, so that a
    new parameter with a no-op default changes no digest. A changed default bumps `version`.
    """

    technique: str
    version: int = 1
    parameters: tuple[tuple[str, ParameterValue], ...] = ()

    def describe(self) -> str:
        """Return the step as a reader would write it, for instance `qat(epochs=2)`."""
        inside = ", ".join(f"{name}={value}" for name, value in self.parameters)
        return f"{self.technique}({inside})"


@dataclass(frozen=True)
class Provenance:
    """What a recipe starts from: all that decides the bytes of an artifact beside the steps.

    `weights` and `calibration` are SHA-256 digests of the float weights and of the calibration
    images, `training` one of the images, the seed and the schedule that fine-tuning uses (empty for a
    recipe that does not train), `versions` the libraries that make the artifact and this package,
    `lowering` the runtime's version of how it lowers, `cpu` the features of this CPU that it chooses by,
    `preprocessing` a digest of how images become the model's input.
    """

    model: str
    weights: str
    calibration: str
    training: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    lowering: int = 0
    cpu: tuple[str, ...] = ()
    target: Target = "native"
    preprocessing: str = ""


@dataclass(frozen=True)
class Recipe:
    """A named configuration (`config`) of steps for one runtime, with that runtime's own options."""

    config: str
    steps: tuple[Step, ...]
    runtime: str
    options: tuple[tuple[str, ParameterValue], ...] = ()

    @property
    def name(self) -> str:
        """The variant's name, `<config>@<runtime>`."""
        return f"{self.config}@{self.runtime}"

    def digest(self, provenance: Provenance) -> str:
        """SHA-256 (first 16 hex digits) of the steps, runtime, options and provenance.

        The config's name is left out: two names for the same steps are the same artifact.
        """
        return digest_of(
            {
                "steps": [canonical_step(step) for step in self.steps],
                "runtime": self.runtime,
                "options": dict(self.options),
                "provenance": canonical_provenance(provenance),
            }
        )


def canonical_step(step: Step) -> dict[str, object]:
    """Return the JSON form of a step that digests are taken of."""
    return {"technique": step.technique, "version": step.version, "parameters": dict(step.parameters)}


def canonical_provenance(provenance: Provenance) -> dict[str, object]:
    """Return the JSON form of a provenance, without fields at their default."""
    fields: dict[str, object] = {
        "model": provenance.model,
        "weights": provenance.weights,
        "calibration": provenance.calibration,
    }
    if provenance.training:
        fields["training"] = provenance.training
    if provenance.versions:
        fields["versions"] = dict(provenance.versions)
    if provenance.lowering:
        fields["lowering"] = provenance.lowering
    if provenance.cpu:
        fields["cpu"] = list(provenance.cpu)
    if provenance.target != "native":
        fields["target"] = provenance.target
    if provenance.preprocessing:
        fields["preprocessing"] = provenance.preprocessing
    return fields


def digest_of(content: Mapping[str, object]) -> str:
    """SHA-256 (first 16 hex digits) of the canonical JSON of `content`: sorted keys, no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
