from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_explorer.analysis.hardware.layer_roof import LayerRoof, roof_of_layer
from quant_explorer.analysis.hardware.scaling import compute_share, estimate_at_clock
from quant_explorer.core.cost.counts import LayerCost
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.errors import SettingsError

fixed = settings(derandomize=True, deadline=None, max_examples=60)


def layer(macs: int, parameters: int, precision: str = "fp32") -> LayerRoof:
    cost = LayerCost("one", "Linear", (1, 0), (1, 0), macs, parameters, 0, 0)
    return roof_of_layer(cost, "fp32", Peaks(1, {precision: 1.0}, 4.0))


def test_the_share_is_of_the_times_under_the_roof() -> None:
    # 3,000 MAC at 1 GMAC/s take 3 us, 1,000 weights of 4 bytes at 4 GB/s take 1 us; the norm is fused.
    compute, memory, norm = layer(3_000, 10), layer(500, 1_000), layer(0, 10_000)
    assert compute_share([compute, memory, norm]) == pytest.approx(0.75)


def test_there_is_no_share_without_work_or_without_a_peak() -> None:
    assert compute_share([layer(0, 10)]) is None
    assert compute_share([layer(3_000, 10), layer(3_000, 10, precision="int8")]) is None


def test_half_the_clock_doubles_what_arithmetic_binds() -> None:
    found = estimate_at_clock(0.010, 0.75, 0.5)
    assert found.latency_s_estimate == pytest.approx(0.0175)
    assert found.latency_s_upper_estimate == pytest.approx(0.020)
    assert (found.compute_share_estimate, found.cpu_frequency_scale) == (0.75, 0.5)


@fixed
@given(st.floats(1e-6, 10), st.floats(0, 1), st.floats(0.01, 1))
def test_an_estimate_lies_between_the_measured_and_everything_scaled(
    latency_s: float, share: float, scale: float
) -> None:
    found = estimate_at_clock(latency_s, share, scale)
    assert latency_s * (1 - 1e-12) <= found.latency_s_estimate
    assert found.latency_s_estimate <= found.latency_s_upper_estimate * (1 + 1e-12)
    assert estimate_at_clock(latency_s, share, 1.0).latency_s_estimate == pytest.approx(latency_s)


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.01, float("nan")])
def test_a_scale_is_above_0_and_at_most_1(scale: float) -> None:
    with pytest.raises(SettingsError, match="cpu_frequency_scale"):
        estimate_at_clock(1.0, 0.5, scale)


def test_a_share_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        estimate_at_clock(1.0, 1.5, 0.5)
