from __future__ import annotations

import pytest

from quant_explorer.core.units import format_duration, format_kb, format_mb, format_ms, format_percent


@pytest.mark.parametrize(
    ("size_bytes", "expected"), [(0, "0.0"), (999, "1.0"), (1_155_512, "1,155.5"), (40.0, "0.0")]
)
def test_kilobytes_are_thousands_of_bytes(size_bytes: float, expected: str) -> None:
    assert format_kb(size_bytes) == expected


def test_megabytes_are_millions_of_bytes() -> None:
    assert format_mb(1_250_000_000) == "1,250.0"
    assert format_mb(1_048_576) == "1.0"


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min"), (3_599, "1 h 0 min"), (9_000, "2 h 30 min")],
)
def test_long_durations_are_rounded(duration_s: float, expected: str) -> None:
    assert format_duration(duration_s) == expected


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (0.0, "0.000"),
        (0.0004321, "0.432"),
        (0.0043210, "4.321"),
        (0.01234, "12.34"),
        (0.5, "500"),
        (2.5, "2,500"),
    ],
)
def test_durations_are_in_milliseconds(duration_s: float, expected: str) -> None:
    assert format_ms(duration_s) == expected


def test_shares_are_percentages() -> None:
    assert format_percent(0.81234) == "81.23"
    assert format_percent(1.0) == "100.00"
