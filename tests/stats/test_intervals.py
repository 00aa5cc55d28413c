from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from quant_explorer.stats.intervals import (
    Interval,
    holm,
    median_interval,
    quantile_of_rounds,
    quotient_interval,
    tail_percentile,
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


class TestHolm:
    def test_published_example(self) -> None:
        """Four p-values, stepped down by hand: 4 x 0.005, then 3 x 0.01, then 2 x 0.03, never decreasing."""
        np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])

    @fixed
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
    def test_rejects_what_the_sequential_procedure_rejects(self, p_values: list[float], level: float) -> None:
        rejected = set()
        for step, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
            if p_values[index] * (len(p_values) - step) > level:
                break
            rejected.add(index)
        assert set(np.flatnonzero(holm(p_values) <= level).tolist()) == rejected

    @fixed
    @given(st.lists(st.floats(0, 1), max_size=12))
    def test_stays_between_the_raw_value_and_one(self, p_values: list[float]) -> None:
        adjusted = holm(p_values)
        assert adjusted.shape == (len(p_values),)
        assert np.all(adjusted >= np.array(p_values))
        assert np.all(adjusted <= 1.0)

    @pytest.mark.parametrize("p_values", [[1.1], [-0.1], [math.nan], [[0.1]]])
    def test_refuses_what_is_no_p_value(self, p_values: list[float]) -> None:
        with pytest.raises(ValueError, match="p-values"):
            holm(p_values)


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
