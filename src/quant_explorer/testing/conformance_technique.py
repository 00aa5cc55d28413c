"""What every technique must do, as tests that its author inherits. Needs pytest.

class TestMyTechnique(TechniqueConformance):
    technique = MyTechnique(strength=0.5)
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import sys
from typing import ClassVar

import numpy as np
import pytest

from quant_explorer.core.contracts import Candidate, Technique, Workbench
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import ParameterValue
from quant_explorer.techniques import TECHNIQUES, create_step, create_technique
from quant_explorer.testing.reference import differences, float_logits
from quant_explorer.testing.toys import TOY_CLASSES, ToyTraining, toy_batches, toy_model


class TechniqueConformance:
    """Inherit and set `technique`, an instance; `before` are techniques that must come first."""

    technique: ClassVar[Technique]
    before: ClassVar[tuple[Technique, ...]] = ()

    @pytest.fixture
    def training(self) -> ToyTraining:
        """Return the training loop that the workbench offers."""
        return ToyTraining()

    @pytest.fixture
    def workbench(self, training: ToyTraining) -> Workbench:
        """Return calibration batches, the training loop, and the model as it was at first."""
        return Workbench(toy_batches(), training, toy_model())

    @pytest.fixture
    def candidate(self, workbench: Workbench) -> Candidate:
        """Return the toy model as the techniques in `before` leave it."""
        candidate = Candidate(toy_model(), QuantSpec())
        for technique in self.before:
            candidate = technique.apply(candidate, workbench)
        return candidate

    def test_is_a_frozen_dataclass_of_plain_parameters(self) -> None:
        """Its fields are the parameters of a recipe's step, so each has a default and is plain."""
        technique: object = self.technique
        for field in _fields(type(self.technique)):
            assert isinstance(field.default, ParameterValue), f"{field.name} needs a plain default"
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(technique, field.name, field.default)
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            technique.no_such_parameter = 1  # type: ignore[attr-defined]

    def test_is_registered_under_its_name(self) -> None:
        """`version` starts at 1; a changed default raises it."""
        kind = type(self.technique)
        assert re.fullmatch(r"[a-z][a-z0-9_]*", kind.name)
        assert TECHNIQUES[kind.name] is kind
        assert isinstance(kind.version, int)
        assert kind.version >= 1
        assert isinstance(kind.trains, bool)
        assert all(name and version for name, version in self.technique.versions().items())

    def test_step_and_back(self) -> None:
        """Parameters survive the recipe, and those at their default are left out of it."""
        kind = type(self.technique)
        parameters = {field.name: getattr(self.technique, field.name) for field in _fields(kind)}
        step = create_step(kind.name, **parameters)
        assert create_technique(step) == self.technique
        assert step.version == kind.version
        unchanged = kind()
        defaults = {field.name: getattr(unchanged, field.name) for field in _fields(kind)}
        assert create_step(kind.name, **defaults).parameters == ()
        assert all(defaults[name] != value for name, value in step.parameters)

    def test_unknown_parameter_names_those_allowed(self) -> None:
        """The message lists the parameters."""
        kind = type(self.technique)
        with pytest.raises(SettingsError, match="no_such_parameter") as raised:
            create_step(kind.name, no_such_parameter=1)
        assert all(field.name in str(raised.value) for field in _fields(kind))

    def test_says_what_it_does_and_where_it_comes_from(self) -> None:
        """The module has the formula and its source; the class says what the parameters are."""
        kind = type(self.technique)
        assert "Source: " in (sys.modules[kind.__module__].__doc__ or "")
        text = inspect.cleandoc(kind.__doc__ or "")
        assert text
        assert not text.startswith(f"{kind.__name__}("), "dataclass wrote this docstring, nobody else did"

    def test_supports_the_toy(self, candidate: Candidate) -> None:
        """Otherwise nothing else here would be tested."""
        assert self.technique.unsupported(candidate) is None

    def test_unsupported_is_none_or_a_reason(self) -> None:
        """Of a model without any layer, too."""
        from torch import nn

        reason = self.technique.unsupported(Candidate(nn.Flatten(), QuantSpec()))
        assert reason is None or reason.strip()

    def test_leaves_its_argument_untouched(self, candidate: Candidate, workbench: Workbench) -> None:
        """Of the model: tensors, training modes, modules, attributes, hooks. The spec is frozen."""
        model, before = candidate.model, copy.deepcopy(candidate.model)
        spec = candidate.spec
        self.technique.apply(candidate, workbench)
        assert candidate.model is model
        assert candidate.spec is spec
        assert differences(before, model) == []

    def test_returns_a_float_model_that_runs(self, candidate: Candidate, workbench: Workbench) -> None:
        """With the same input and output, in evaluation mode, and finite."""
        import torch

        result = self.technique.apply(candidate, workbench)
        assert isinstance(result, Candidate)
        assert not any(module.training for module in result.model.modules())
        assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
        batch = toy_batches(count=1, seed=5)[0]
        logits = float_logits(result.model, batch)
        assert logits.shape == (len(batch), len(TOY_CLASSES))
        assert np.isfinite(logits).all()

    def test_changes_something(self, candidate: Candidate, workbench: Workbench) -> None:
        """The spec, or the model."""
        result = self.technique.apply(candidate, workbench)
        assert result.spec != candidate.spec or differences(candidate.model, result.model)

    def test_trains_as_it_says(
        self, candidate: Candidate, workbench: Workbench, training: ToyTraining
    ) -> None:
        """Once, on a copy, with its own parameters; or not at all. The baseline is nobody's to train."""
        training.calls.clear()
        self.technique.apply(candidate, workbench)
        if not self.technique.trains:
            assert training.calls == []
            return
        (call,) = training.calls
        assert call.model is not candidate.model
        assert call.model is not workbench.baseline
        assert call.label
        asked = {field.name: getattr(self.technique, field.name) for field in _fields(type(self.technique))}
        assert asked.get("epochs", call.epochs) == call.epochs
        assert asked.get("learning_rate", call.learning_rate) == call.learning_rate

    def test_same_input_same_result(self, candidate: Candidate, workbench: Workbench) -> None:
        """Nothing depends on the global random state or on an earlier call."""
        first = self.technique.apply(candidate, workbench)
        second = self.technique.apply(candidate, workbench)
        assert first.spec == second.spec
        assert differences(first.model, second.model) == []


def _fields(kind: type[Technique]) -> tuple[dataclasses.Field[ParameterValue], ...]:
    return dataclasses.fields(kind)  # type: ignore[arg-type]
