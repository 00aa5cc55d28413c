from torch import nn

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.techniques.dynamic_int8 import DynamicInt8
from quant_explorer.testing.toys import ToyTraining, toy_model


def test_asks_for_dynamic_int8_and_leaves_the_rest() -> None:
    candidate = Candidate(toy_model(), QuantSpec(granularity="per_tensor", float_layers=("x",)))
    result = DynamicInt8().apply(candidate, Workbench((), ToyTraining()))
    assert result.spec == QuantSpec("int8", "dynamic", "per_channel", float_layers=("x",))
    assert result.model is candidate.model


def test_a_model_without_linear_layers_is_not_called_int8() -> None:
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    reason = DynamicInt8().unsupported(Candidate(convolutional, QuantSpec()))
    assert reason == "the model has no nn.Linear layer, so nothing would be quantized"
    convolutional.append(nn.Sequential(nn.Linear(4, 4)))
    assert DynamicInt8().unsupported(Candidate(convolutional, QuantSpec())) is None
