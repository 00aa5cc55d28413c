from __future__ import annotations

import numpy as np
import pytest

from quant_explorer.stats.rounds import quantile_of_rounds, tail_interval, tail_percentile


class TestTailPercentile:
    def test_is_the_percentile_of_all_calls_of_equal_rounds(self) -> None:
        rounds = np.random.default_rng(0).lognormal(size=(7, 100))
        for q in (95, 99):
            expected = float(np.percentile(rounds, q, method="inverted_cdf"))
            assert tail_percentile(list(rounds), q) == (expected, None)

    def test_each_round_has_the_same_weight(self) -> None:
        """Pooled, the calls of the fast round would hide the slow one."""
        fast, slow = np.linspace(1.0, 1.1, 10_000), np.linspace(2.0, 2.1, 1_000)
        assert tail_percentile([fast, slow], 95)[0] == pytest.approx(2.09, abs=1e-3)
        assert quantile_of_rounds([fast, slow], 0.5) == pytest.approx(1.1, abs=1e-3)

    @pytest.mark.parametrize(("q", "floor"), [(95, 130), (99, 662)])
    def test_needs_more_calls_than_the_floor(self, q: int, floor: int) -> None:
        assert tail_percentile([np.ones(floor + 1)], q) == (1.0, None)  # type: ignore[arg-type]
        value, reason = tail_percentile([np.ones(floor)], q)  # type: ignore[arg-type]
        assert value is None
        assert reason == f"p{q} needs more than {floor} calls, there are {floor}"

    def test_a_round_of_few_calls_counts_as_few(self) -> None:
        assert tail_percentile([np.ones(10), np.ones(10_000)], 95)[0] is None

    def test_refuses_another_percentile_and_empty_rounds(self) -> None:
        with pytest.raises(ValueError, match="95"):
            tail_percentile([np.ones(1_000)], 90)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="without calls"):
            tail_percentile([np.ones(1_000), np.ones(0)], 95)
        with pytest.raises(ValueError, match="at least one round"):
            quantile_of_rounds([], 0.5)


class TestTailInterval:
    @pytest.mark.parametrize(("slow_rounds", "low"), [(1, 1.0), (6, 2.0)])
    def test_rounds_are_what_is_drawn(self, slow_rounds: int, low: float) -> None:
        # A draw lacks a slow round with a probability of (11 / 12)^12 = 0.35, or of 0.5^12.
        rounds = [np.full(10, 2.0)] * slow_rounds + [np.full(10, 1.0)] * (12 - slow_rounds)
        found = tail_interval(rounds, 0.99)
        assert (found.low, found.high) == (low, 2.0)

    def test_a_lower_confidence_is_narrower(self) -> None:
        rounds = [np.full(10, 1 + number / 20) for number in range(20)]
        wide, narrow = (tail_interval(rounds, 0.9, confidence).half_width for confidence in (0.95, 0.5))
        assert 0 < narrow < wide
