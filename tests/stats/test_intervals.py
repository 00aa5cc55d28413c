from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from quant_explorer.stats.intervals import (
    Interval,
    interval_of_quotient,
    median_interval,
    quotient_interval,
    wilson,
)

fixed = settings(derandomize=True, deadline=None, max_examples=60)
durations = st.floats(1e-6, 1e3)
Z = 1.959963984540054


class TestInterval:
    def test_holds_its_ends_and_nothing_beyond(self) -> None:
        interval = Interval(-1.0, 3.0)
        assert interval.contains(-1.0)
        assert interval.contains(3.0)
        assert not interval.contains(3.0000001)
        assert not interval.contains(-1.0000001)
        assert interval.half_width == 2.0

    @pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan)])
    def test_refuses_ends_that_are_no_interval(self, low: float, high: float) -> None:
        with pytest.raises(ValueError, match="low <= high"):
            Interval(low, high)


class TestWilson:
    @fixed
    @given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_ends_are_where_the_score_test_just_rejects(self, counts: tuple[int, int]) -> None:
        successes, total = counts
        interval = wilson(successes, total)
        share = successes / total
        for end in (interval.low, interval.high):
            if 0.0 < end < 1.0:
                assert abs(share - end) / math.sqrt(end * (1 - end) / total) == pytest.approx(Z)
        assert 0.0 <= interval.low <= share <= interval.high <= 1.0

    def test_is_not_empty_at_the_extremes(self) -> None:
        assert wilson(0, 10).low == 0.0
        assert wilson(0, 10).high == pytest.approx(0.27753, abs=1e-5)
        assert wilson(10, 10).high == 1.0

    @pytest.mark.parametrize(("successes", "total"), [(0, 0), (-1, 5), (6, 5)])
    def test_refuses_impossible_counts(self, successes: int, total: int) -> None:
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, total)


class TestMedianInterval:
    @fixed
    @given(st.lists(durations, min_size=2, max_size=70))
    def test_encloses_the_median(self, values: list[float]) -> None:
        point, interval = median_interval(np.array(values))
        assert point == np.median(values)
        assert interval.contains(point)

    @fixed
    @given(st.integers(6, 100))
    def test_lies_between_the_exact_order_statistic_intervals(self, rounds: int) -> None:
        """The widest one that covers less than 95 % and the narrowest one that covers at least as much."""
        rank = int(scipy_stats.binom.ppf(0.025, rounds, 0.5))
        if 1 - 2 * scipy_stats.binom.cdf(rank - 1, rounds, 0.5) < 0.95:
            rank -= 1
        _, interval = median_interval(np.arange(1.0, rounds + 1))
        assert rank <= interval.low <= rank + 1
        assert rounds - rank <= interval.high <= rounds + 1 - rank

    @fixed
    @given(st.lists(durations, min_size=2, max_size=40))
    def test_order_of_rounds_does_not_matter(self, values: list[float]) -> None:
        _, interval = median_interval(np.array(values))
        _, reordered = median_interval(np.array(sorted(values)))
        assert (reordered.low, reordered.high) == pytest.approx((interval.low, interval.high))

    @pytest.mark.parametrize("rounds", [2, 5, 6, 10, 33])
    def test_equal_rounds_leave_no_doubt(self, rounds: int) -> None:
        point, interval = median_interval(np.full(rounds, 0.1))
        assert point == 0.1
        assert interval.half_width < 1e-15

    def test_a_few_slowed_rounds_move_it_little(self) -> None:
        steady = np.linspace(1.0, 1.02, 20)
        slowed = steady.copy()
        slowed[[3, 17]] *= 3
        _, interval = median_interval(slowed)
        assert interval.high < 1.03

    def test_a_handful_of_rounds_is_wide(self) -> None:
        values = np.array([1.0, 1.01, 0.99, 1.02, 0.98, 1.03])
        assert median_interval(values[:3])[1].half_width > median_interval(values)[1].half_width

    @pytest.mark.parametrize(
        "values", [[], [1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]]
    )
    def test_refuses_what_is_not_at_least_two_durations(self, values: list[float]) -> None:
        with pytest.raises(ValueError, match="rounds"):
            median_interval(np.array(values, dtype=np.float64))


class TestQuotientInterval:
    def test_is_the_quotient_of_the_medians_and_lies_around_it(self) -> None:
        rng = np.random.default_rng(0)
        first, second = (value * rng.lognormal(0, 0.01, 20) for value in (6.0, 2.0))
        quotient, interval = quotient_interval(first, second)
        assert quotient == np.median(first) / np.median(second)
        assert 2.9 < interval.low < quotient < interval.high < 3.1
        assert quotient_interval(first, second)[1] == interval

    def test_refuses_a_handful_of_rounds(self) -> None:
        with pytest.raises(ValueError, match="at least 6 rounds, got 5"):
            quotient_interval(np.ones(6), np.ones(5))


class TestIntervalOfQuotient:
    def test_distances_of_logarithms_add_up_as_squares(self) -> None:
        found = interval_of_quotient(2.0, Interval(1.8, 2 / 0.9), 1.0, Interval(0.9, 1 / 0.9))
        distance = math.sqrt(2) * math.log(1 / 0.9)
        assert found.low == pytest.approx(2 * math.exp(-distance))
        assert found.high == pytest.approx(2 * math.exp(distance))

    def test_many_comparisons_hold_at_once_by_wider_intervals(self) -> None:
        exact, wide = Interval(1.0, 1.0), Interval(0.9, 1 / 0.9)
        found = interval_of_quotient(1.0, exact, 1.0, wide, comparisons=20)
        z = float(scipy_stats.norm.ppf(1 - 0.025 / 20))
        assert found.high == pytest.approx(math.exp(z / Z * math.log(1 / 0.9)))

    def test_refuses_ends_that_have_no_logarithm(self) -> None:
        with pytest.raises(ValueError, match="positive"):
            interval_of_quotient(1.0, Interval(0.0, 1.0), 1.0, Interval(1.0, 1.0))
