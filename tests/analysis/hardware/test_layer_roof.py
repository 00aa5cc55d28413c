from dataclasses import replace

from quant_explorer.analysis.hardware.layer_roof import roof_of_layer
from quant_explorer.core.cost.counts import LayerCost
from quant_explorer.core.cost.roofline import Peaks

PEAKS = Peaks(1, {"fp32": 50.0}, 10.0)
# 1,000 weights, 100 + 100 activations.
LAYER = LayerCost("fc", "Linear", (1, 100), (1, 100), 10_000, 1_000, 100, 100)


def test_a_layer_is_bound_by_memory_or_by_arithmetic() -> None:
    alone = roof_of_layer(LAYER, "fp32", PEAKS)
    assert (alone.weight_bytes, alone.activation_bytes, alone.moved_bytes) == (4_000, 800, 4_800)
    assert (alone.macs_per_byte, alone.bound) == (10_000 / 4_800, "memory")
    assert alone.roof_s == 4_800 / 10e9
    busy = roof_of_layer(replace(LAYER, macs=320_000), "fp32", PEAKS)
    assert (busy.moved_bytes, busy.bound) == (4_800, "compute")
    assert busy.roof_s == 320_000 / 50e9


def test_without_a_peak_there_are_bytes_and_no_time() -> None:
    for layer in (roof_of_layer(LAYER, "int8", PEAKS), roof_of_layer(LAYER, "int8", None)):
        assert layer.moved_bytes == 1_200
        assert layer.roof_s is None
        assert layer.bound is None
