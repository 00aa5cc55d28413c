from __future__ import annotations

from collections.abc import Sequence

import pytest

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.pipeline.building.bisection import find_layer, keep_float, quantized_layers
from quant_explorer.testing.toys import toy_model

LAYERS = [f"layer{number}" for number in range(11)]


@pytest.mark.parametrize("wrong", LAYERS)
def test_the_layer_is_found_with_few_questions(wrong: str) -> None:
    asked: list[int] = []

    def passes(layers: Sequence[str]) -> bool:
        asked.append(len(layers))
        return wrong in layers

    assert find_layer(LAYERS, passes) == wrong
    assert len(asked) <= 5


def test_of_several_wrong_layers_it_is_the_last() -> None:
    assert find_layer(LAYERS, lambda layers: {"layer2", "layer6"} <= set(layers)) == "layer6"


def test_a_fault_that_is_in_no_layer_is_found_by_one_question() -> None:
    asked: list[Sequence[str]] = []

    def passes(layers: Sequence[str]) -> bool:
        asked.append(layers)
        return False

    assert find_layer(LAYERS, passes) is None
    assert asked == [LAYERS]


def test_layers_are_those_that_the_spec_quantizes() -> None:
    static = QuantSpec("int8", "static", float_layers=("4",))
    assert quantized_layers(Candidate(toy_model(), static)) == ["0", "9"]
    assert quantized_layers(Candidate(toy_model(), QuantSpec("int8", "dynamic"))) == ["9"]
    assert keep_float(Candidate(toy_model(), static), ["0"]).spec.float_layers == ("4", "0")
