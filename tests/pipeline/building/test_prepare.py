from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.recipe import Step
from quant_explorer.pipeline.building import prepare
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.training.trainer import Trainer
from quant_explorer.techniques import create_step
from quant_explorer.testing.reference import differences
from quant_explorer.testing.toys import TOY_SHAPE, toy_linear_model
from tests.pipeline.toy_runs import INT8, toy_experiment, toy_subject

QAT = (create_step("static_int8"), create_step("qat", epochs=1))
CONTROL = (create_step("fine_tune"),)
SUBJECT = toy_subject()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_steps_are_applied_in_order_and_the_subject_is_left_as_it_was(run: RunFolder) -> None:
    plain = Preparation(toy_experiment(run, SUBJECT)).candidate(())
    assert plain.spec.precision == "fp32"
    quantized = Preparation(toy_experiment(run, SUBJECT)).candidate((INT8,))
    assert (quantized.spec.precision, quantized.spec.granularity) == ("int8", "per_tensor")
    Preparation(toy_experiment(run, SUBJECT)).candidate(QAT)
    assert differences(toy_linear_model(shape=TOY_SHAPE), SUBJECT.model) == []


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((create_step("qat"),), "needs a static INT8 step before it"),
        ((INT8, create_step("half_precision", precision="fp16")), "asks for int8 already"),
    ],
)
def test_what_the_technique_cannot_do_is_a_reason(
    run: RunFolder, steps: tuple[Step, ...], reason: str
) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        Preparation(toy_experiment(run, SUBJECT)).candidate(steps)


def test_the_next_runtime_gets_the_same_candidate(run: RunFolder) -> None:
    preparation = Preparation(toy_experiment(run, SUBJECT))
    first = preparation.candidate((INT8,))
    assert preparation.candidate((INT8,)) is first
    # Only the last is kept.
    other = preparation.candidate(())
    assert other.spec != first.spec
    assert preparation.candidate((INT8,)) is not first


def test_precisions_share_the_model_that_was_made_before_them(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparation = Preparation(toy_experiment(run, SUBJECT))
    monkeypatch.setattr(prepare, "_restore", None)
    plain = preparation.candidate(CONTROL)
    quantized = preparation.candidate((*CONTROL, INT8))
    half = preparation.candidate((*CONTROL, create_step("half_precision")))
    assert quantized.model is half.model is plain.model
    assert (quantized.spec.precision, half.spec.precision) == ("int8", "bf16")


def test_trained_weights_are_trained_once_and_shared(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    fit = Trainer.fit

    def count(self: Trainer, model: nn.Module, schedule: object, *, label: str) -> None:
        labels.append(label)
        fit(self, model, schedule, label=label)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(Trainer, "fit", count)
    first = Preparation(toy_experiment(run, SUBJECT)).candidate(QAT)
    second = Preparation(toy_experiment(run, SUBJECT)).candidate(QAT)
    assert labels == ["fine-tune INT8 (QAT)"]
    assert second.spec == first.spec
    assert second.spec.activation_ranges
    assert len(first.notes) == 1
    assert second.notes == first.notes
    assert differences(first.model, second.model) == []
    assert differences(SUBJECT.model, second.model) != []
    # The control shares neither weights nor training.
    control = Preparation(toy_experiment(run, SUBJECT)).candidate(CONTROL)
    assert labels[1:] == ["fine-tune FP32"]
    assert differences(control.model, first.model) != []
    assert len(list(run.weights.glob("*.safetensors"))) == 2


def test_weights_without_their_spec_are_trained_again(run: RunFolder) -> None:
    Preparation(toy_experiment(run, SUBJECT)).candidate(QAT)
    (spec,) = run.weights.glob("*.spec.json")
    kept = spec.read_bytes()
    spec.unlink()
    Preparation(toy_experiment(run, SUBJECT)).candidate(QAT)
    assert spec.read_bytes() == kept
