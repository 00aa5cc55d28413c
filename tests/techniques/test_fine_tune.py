import dataclasses

import torch

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.techniques.fine_tune import FineTuneFloat
from quant_explorer.techniques.qat import QuantizationAwareTraining
from quant_explorer.testing.reference import differences
from quant_explorer.testing.toys import ToyTraining, toy_model


def test_control_and_qat_have_the_same_parameters_and_defaults() -> None:
    """Otherwise the difference between the two would be training, not quantization."""
    assert dataclasses.asdict(FineTuneFloat()) == dataclasses.asdict(QuantizationAwareTraining())
    assert dataclasses.asdict(FineTuneFloat()) == {"epochs": 1, "learning_rate": 0.005}


def test_control_and_qat_ask_the_loop_for_the_same() -> None:
    training = ToyTraining()
    bench = Workbench(training.batches, training)
    FineTuneFloat(epochs=4, learning_rate=0.02).apply(Candidate(toy_model(), QuantSpec()), bench)
    static = Candidate(toy_model(), QuantSpec("int8", "static"))
    QuantizationAwareTraining(epochs=4, learning_rate=0.02).apply(static, bench)
    control, qat = training.calls
    assert (control.epochs, control.learning_rate) == (qat.epochs, qat.learning_rate) == (4, 0.02)
    assert control.label != qat.label


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
