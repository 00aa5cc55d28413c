from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_explorer.core.cost.roofline import (
    Peaks,
    attainable_gmacs_per_s,
    binding,
    locate,
    override_peaks,
    peak_of,
    ridge_macs_per_byte,
)
from quant_explorer.core.errors import SettingsError

PEAKS = Peaks(1, {"fp32": 50.0, "int8": 200.0}, 10.0, reasons={"fp16": "no kernel"})
fixed = settings(derandomize=True, deadline=None, max_examples=60)
positive = st.floats(1e-3, 1e6)


@fixed
@given(positive, positive, positive)
def test_the_roof_is_the_lower_of_two_and_turns_at_the_ridge(
    intensity: float, peak: float, bandwidth: float
) -> None:
    roof = attainable_gmacs_per_s(intensity, peak, bandwidth)
    if binding(intensity, peak, bandwidth) == "compute":
        assert roof == pytest.approx(peak)
    else:
        assert roof == pytest.approx(intensity * bandwidth)
        assert roof <= peak
    at_ridge = attainable_gmacs_per_s(ridge_macs_per_byte(peak, bandwidth), peak, bandwidth)
    assert at_ridge == pytest.approx(peak)


def test_a_latency_under_the_flat_roof() -> None:
    point = locate({"fp32": 40_000_000}, 4_000_000, 0.002, PEAKS)
    assert point is not None
    assert point.macs_per_byte == 10
    assert point.achieved_gmacs_per_s == pytest.approx(20)
    assert (point.attainable_gmacs_per_s, point.bound) == (50, "compute")
    assert point.roof_share == pytest.approx(0.4)


def test_a_latency_under_the_slope() -> None:
    point = locate({"fp32": 4_000_000}, 4_000_000, 0.0005, PEAKS)
    assert point is not None
    assert (point.attainable_gmacs_per_s, point.bound) == (10, "memory")
    assert point.roof_share == pytest.approx(0.8)


def test_two_precisions_take_the_sum_of_their_times() -> None:
    # 1 MAC at 50 and 3 at 200 take 0.02 + 0.015.
    assert peak_of({"fp32": 1, "int8": 3, "fp16": 0}, PEAKS) == pytest.approx(4 / 0.035)


@pytest.mark.parametrize("macs", [{}, {"fp32": 0}, {"fp16": 5}, {"fp32": 5, "unknown": 1}])
def test_no_peak_no_point(macs: dict[str, int]) -> None:
    assert locate(macs, 100, 1.0, PEAKS) is None


@pytest.mark.parametrize(("bytes_moved", "latency_s"), [(0, 1.0), (10, 0.0), (10, float("nan"))])
def test_a_point_needs_time_and_traffic(bytes_moved: int, latency_s: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        locate({"fp32": 1}, bytes_moved, latency_s, PEAKS)


def test_given_figures_win_and_are_labelled() -> None:
    peaks = override_peaks(PEAKS, {"fp16": 80.0, "fp32": 60.0}, 12.0)
    assert peaks.gmacs_per_s == {"fp32": 60.0, "int8": 200.0, "fp16": 80.0}
    assert (peaks.gb_per_s, peaks.reasons) == (12.0, {})
    assert peaks.overrides == ("fp16", "fp32", "gb_per_s")
    assert PEAKS.gmacs_per_s["fp32"] == 50.0
    assert override_peaks(peaks, {"fp32": 70.0}).overrides == peaks.overrides
    assert override_peaks(PEAKS) == PEAKS


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_given_figures_are_positive(value: float) -> None:
    with pytest.raises(SettingsError, match="fp32"):
        override_peaks(PEAKS, {"fp32": value})
    with pytest.raises(SettingsError, match="gb_per_s"):
        override_peaks(PEAKS, gb_per_s=value)


def test_peaks_can_be_stored() -> None:
    assert msgspec.json.decode(msgspec.json.encode(PEAKS), type=Peaks) == PEAKS
