from typing import Literal

import pytest

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.techniques.half import HalfPrecision
from quant_explorer.techniques.static_int8 import StaticInt8
from quant_explorer.testing.toys import ToyTraining, toy_model

BENCH = Workbench((), ToyTraining(), toy_model())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_asks_for_16_bits_and_leaves_the_rest(precision: Literal["bf16", "fp16"]) -> None:
    candidate = Candidate(toy_model(), QuantSpec(float_layers=("9",)), notes=("found before",))
    result = HalfPrecision(precision).apply(candidate, BENCH)
    assert result.spec == QuantSpec(precision, float_layers=("9",))
    assert result.model is candidate.model
    assert result.notes == ("found before",)


def test_a_precision_is_asked_for_once() -> None:
    candidate = StaticInt8().apply(Candidate(toy_model(), QuantSpec()), BENCH)
    assert HalfPrecision().unsupported(candidate) == "the recipe asks for int8 already"
    half = HalfPrecision("fp16").apply(Candidate(toy_model(), QuantSpec()), BENCH)
    assert HalfPrecision("bf16").unsupported(half) == "the recipe asks for fp16 already"
    assert HalfPrecision().unsupported(Candidate(toy_model(), QuantSpec())) is None
