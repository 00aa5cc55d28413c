import dataclasses

import pytest
import torch

from quant_explorer.core.contracts import Candidate, Teacher, Workbench
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Step
from quant_explorer.techniques import create_step
from quant_explorer.techniques.fine_tune import FineTuneFloat
from quant_explorer.techniques.qat import QuantizationAwareTraining
from quant_explorer.testing.reference import differences
from quant_explorer.testing.toys import ToyTraining, toy_model


def test_control_and_qat_have_the_same_parameters_and_defaults() -> None:
    """Otherwise the difference between the two would be training, not quantization."""
    control, qat = dataclasses.asdict(FineTuneFloat()), dataclasses.asdict(QuantizationAwareTraining())
    assert qat == {"epochs": 1, "learning_rate": 0.005}
    assert control == qat | {"distill": False, "temperature": 4.0, "teacher_weight": 0.9}


def test_control_and_qat_ask_the_loop_for_the_same() -> None:
    training = ToyTraining()
    bench = Workbench(training.batches, training)
    FineTuneFloat(epochs=4, learning_rate=0.02).apply(Candidate(toy_model(), QuantSpec()), bench)
    static = Candidate(toy_model(), QuantSpec("int8", "static"))
    QuantizationAwareTraining(epochs=4, learning_rate=0.02).apply(static, bench)
    control, qat = training.calls
    assert (control.epochs, control.learning_rate) == (qat.epochs, qat.learning_rate) == (4, 0.02)
    assert control.label != qat.label
    assert control.teacher is None


def test_result_is_what_the_loop_made_of_a_copy() -> None:
    model, training = toy_model(), ToyTraining()
    result = FineTuneFloat(learning_rate=0.1).apply(
        Candidate(model, QuantSpec()), Workbench(training.batches, training)
    )
    by_hand = toy_model()
    ToyTraining()(by_hand, epochs=1, learning_rate=0.1, label="by hand")
    assert result.model is training.calls[0].model
    assert differences(by_hand, result.model) == []
    assert not torch.equal(model.state_dict()["0.weight"], by_hand.state_dict()["0.weight"])
    assert result.spec == QuantSpec()


def test_without_distillation_the_step_is_what_it_always_was() -> None:
    """A new parameter at its default is in no digest."""
    assert create_step("fine_tune", distill=False, epochs=3) == Step("fine_tune", 1, (("epochs", 3),))


def test_the_teacher_is_the_baseline_and_not_the_candidate() -> None:
    training, baseline, pruned = ToyTraining(), toy_model(), toy_model(seed=1)
    FineTuneFloat(distill=True, temperature=2.0, teacher_weight=0.5).apply(
        Candidate(pruned, QuantSpec()), Workbench(training.batches, training, baseline)
    )
    (call,) = training.calls
    assert call.teacher == Teacher(baseline, temperature=2.0, weight=0.5)
    assert call.teacher.model is baseline
    assert differences(pruned, toy_model(seed=1)) == []


def test_what_earlier_techniques_noted_is_kept() -> None:
    training = ToyTraining()
    candidate = Candidate(toy_model(), QuantSpec(), notes=("pruned",))
    result = FineTuneFloat().apply(candidate, Workbench(training.batches, training))
    assert result.notes == ("pruned",)


def test_without_a_teacher_there_is_no_distillation() -> None:
    training = ToyTraining()
    with pytest.raises(UnsupportedError, match="needs the run's own float model"):
        FineTuneFloat(distill=True).apply(
            Candidate(toy_model(), QuantSpec()), Workbench(training.batches, training)
        )
    assert training.calls == []


@pytest.mark.parametrize(
    ("technique", "reason"),
    [
        (FineTuneFloat(temperature=0.0), "temperature 0.0 is out of range. Allowed: above 0"),
        (FineTuneFloat(teacher_weight=1.5), "teacher_weight 1.5 is out of range. Allowed: 0 to 1"),
        (FineTuneFloat(temperature=20.0, teacher_weight=1.0), None),
    ],
)
def test_parameters_out_of_range_are_a_reason(technique: FineTuneFloat, reason: str | None) -> None:
    assert technique.unsupported(Candidate(toy_model(), QuantSpec())) == reason
