from math import inf

import msgspec

from quant_explorer.core.cost.counts import (
    LayerCost,
    ModelCost,
    activation_bytes,
    arithmetic_intensity,
    model_moved_bytes,
    moved_bytes,
    peak_activation_bytes,
    weight_bytes,
)

TWICE = LayerCost("head", "Linear", (1, 8), (1, 4), 64, 36, 16, 8, calls=2)
NORM = LayerCost("norm", "BatchNorm2d", (1, 8, 2, 2), (1, 8, 2, 2), 0, 16, 32, 32)


def test_bytes_follow_the_precision_and_weights_do_not_follow_the_batch() -> None:
    assert [weight_bytes(TWICE, precision) for precision in ("fp32", "bf16", "int8")] == [144, 72, 36]
    assert [activation_bytes(TWICE, "fp32", batch) for batch in (1, 8)] == [96, 768]
    assert moved_bytes(TWICE, "fp32", 8) == 2 * 144 + 768


def test_what_does_not_multiply_moves_nothing_of_its_own() -> None:
    assert moved_bytes(NORM, "fp32") == 320
    assert model_moved_bytes([TWICE, NORM], "int8", 2) == 2 * 36 + 2 * 24


def test_intensity_of_nothing_moved_and_of_nothing_done() -> None:
    assert arithmetic_intensity(12, 4) == 3
    assert arithmetic_intensity(12, 0) == inf
    assert arithmetic_intensity(0, 0) == 0


def test_a_model_adds_up_its_layers_and_may_have_no_peak() -> None:
    untraced = ModelCost((3, 8, 8), (TWICE, TWICE, NORM), peak_reason="no")
    assert untraced.macs == 128
    assert peak_activation_bytes(untraced, "fp32") is None
    traced = ModelCost((3, 8, 8), (), peak_activation_elements=10, peak_node="relu")
    assert peak_activation_bytes(traced, "fp16") == 20


def test_costs_can_be_stored() -> None:
    cost = ModelCost((3, 8, 8), (TWICE, NORM), 10, "relu")
    assert msgspec.json.decode(msgspec.json.encode(cost), type=ModelCost) == cost
