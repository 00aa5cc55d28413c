import pytest
from torch import nn

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.quantspec import Granularity, Observer, QuantSpec
from quant_explorer.techniques.static_int8 import StaticInt8
from quant_explorer.testing.toys import ToyTraining, toy_model

BENCH = Workbench((), ToyTraining())


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("observer", ["histogram", "minmax"])
def test_asks_for_static_int8(granularity: Granularity, observer: Observer) -> None:
    candidate = Candidate(toy_model(), QuantSpec())
    result = StaticInt8(granularity, observer).apply(candidate, BENCH)
    assert result.spec == QuantSpec("int8", "static", granularity, observer)
    assert result.model is candidate.model


def test_keeps_what_others_asked_for() -> None:
    candidate = Candidate(toy_model(), QuantSpec(float_layers=("9",)))
    assert StaticInt8().apply(candidate, BENCH).spec.float_layers == ("9",)


def test_needs_no_particular_layer() -> None:
    assert StaticInt8().unsupported(Candidate(nn.Flatten(), QuantSpec())) is None
