"""Techniques: each changes the float model, or adds to what is asked of a runtime. One file each.

An instance is a frozen dataclass; its fields are the parameters of a recipe's step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from quant_explorer.core.contracts import Technique
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.recipe import ParameterValue, Step
from quant_explorer.core.registry import Registry, unknown_name_message
from quant_explorer.techniques.dynamic_int8 import DynamicInt8
from quant_explorer.techniques.fine_tune import FineTuneFloat
from quant_explorer.techniques.half import HalfPrecision
from quant_explorer.techniques.prune import ChannelPruning
from quant_explorer.techniques.qat import QuantizationAwareTraining
from quant_explorer.techniques.static_int8 import StaticInt8

TECHNIQUES: Registry[type[Technique]] = Registry(
    "technique",
    {
        technique.name: technique
        for technique in (
            DynamicInt8,
            FineTuneFloat,
            HalfPrecision,
            ChannelPruning,
            QuantizationAwareTraining,
            StaticInt8,
        )
    },
)


def create_technique(step: Step) -> Technique:
    """Return the technique of a step with its parameters; raises on an unknown name or parameter."""
    technique = TECHNIQUES[step.technique]
    allowed = _defaults(technique)
    for name, _ in step.parameters:
        if name not in allowed:
            raise SettingsError(unknown_name_message(f"parameter of {step.technique}", name, allowed))
    return technique(**dict(step.parameters))


def create_step(technique: str, **parameters: ParameterValue) -> Step:
    """Return a step in canonical form: parameters sorted, those at their default left out."""
    kind = TECHNIQUES[technique]
    defaults = _defaults(kind)
    kept = tuple(sorted((k, v) for k, v in parameters.items() if k not in defaults or defaults[k] != v))
    step = Step(technique, kind.version, kept)
    create_technique(step)
    return step


def library_versions(steps: Iterable[Step]) -> dict[str, str]:
    """Return the versions of the libraries beside PyTorch that decide what `steps` make."""
    return {name: version for step in steps for name, version in create_technique(step).versions().items()}


def _defaults(technique: type[Technique]) -> dict[str, object]:
    return {field.name: field.default for field in dataclasses.fields(technique)}  # type: ignore[arg-type]
