from __future__ import annotations

import pytest

from quant_explorer.core.measurement import Executed, twin_key


def test_fraction_is_the_share_of_all_multiply_accumulates() -> None:
    executed = Executed({"fp32": 25, "int8": 75}, {})
    assert executed.fraction("int8") == 0.75
    assert executed.fraction("fp32") == 0.25
    assert executed.fraction("bf16") == 0.0


@pytest.mark.parametrize("macs", [{}, {"int8": 0}])
def test_a_model_without_multiply_accumulates_ran_in_no_precision(macs: dict[str, int]) -> None:
    assert Executed(macs, {}).fraction("int8") == 0.0


def test_the_twin_is_not_the_variant() -> None:
    assert len({"d1", twin_key("d1"), twin_key("d2")}) == 3
