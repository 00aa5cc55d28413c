from quant_explorer.analysis.hardware.layer_roof import roof_of_layer
from quant_explorer.core.cost.counts import LayerCost
from quant_explorer.core.cost.roofline import Peaks

PEAKS = Peaks(1, {"fp32": 50.0}, 10.0)
# 1,000 weights, 100 + 100 activations.
LAYER = LayerCost("fc", "Linear", (1, 100), (1, 100), 10_000, 1_000, 100, 100)


def test_a_layer_is_bound_by_memory_and_with_a_batch_by_arithmetic() -> None:
    alone = roof_of_layer(LAYER, "fp32", PEAKS)
    assert (alone.weight_bytes, alone.activation_bytes, alone.moved_bytes) == (4_000, 800, 4_800)
    assert (alone.macs_per_byte, alone.bound) == (10_000 / 4_800, "memory")
    assert alone.roof_s == 4_800 / 10e9
    many = roof_of_layer(LAYER, "fp32", PEAKS, batch_size=32)
    assert (many.macs, many.moved_bytes) == (320_000, 4_000 + 32 * 800)
    assert many.bound == "compute"
    assert many.roof_s == 320_000 / 50e9


def test_without_a_peak_there_are_bytes_and_no_time() -> None:
    for layer in (roof_of_layer(LAYER, "int8", PEAKS), roof_of_layer(LAYER, "int8", None)):
        assert layer.moved_bytes == 1_200
        assert layer.roof_s is None
        assert layer.bound is None
