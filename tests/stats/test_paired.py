from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, special
from scipy import stats as scipy_stats

from quant_explorer.stats.paired import compare_paired, holm, judge_margin

fixed = settings(derandomize=True, deadline=None, max_examples=60)
Z = 1.959963984540054


def flags(*values: int) -> NDArray[np.bool_]:
    return np.array(values, dtype=np.bool_)


def pair(gained: int, lost: int, both: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A variant's and a reference's correct images, with so many right for one of them only, and for both."""
    variant = flags(*[1] * gained, *[0] * lost, *[1] * both)
    reference = flags(*[0] * gained, *[1] * lost, *[1] * both)
    return variant, reference


def score(difference: float, gained: int, lost: int, total: int) -> float:
    """Score statistic of a paired difference, with the likelihood maximized numerically."""
    neither = total - gained - lost

    def surprise(lost_share: float) -> float:
        shares = (lost_share + difference, lost_share, 1 - 2 * lost_share - difference)
        return -float(np.sum(special.xlogy((gained, lost, neither), shares))) if min(shares) >= 0 else 1e18

    lowest, highest = max(0.0, -difference), (1 - difference) / 2
    fit = optimize.minimize_scalar(
        surprise, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}
    )
    variance = (2 * float(fit.x) + difference - difference**2) * total
    return (gained - lost - total * difference) / math.sqrt(variance)


class TestComparePaired:
    @pytest.mark.parametrize(
        ("gained", "lost", "total"), [(3, 9, 200), (40, 12, 1_000), (1, 0, 50), (86, 150, 1_600)]
    )
    def test_interval_ends_where_the_score_test_just_rejects(
        self, gained: int, lost: int, total: int
    ) -> None:
        result = compare_paired(*pair(gained, lost, total - gained - lost))
        low, high = result.interval_pp.low / 100, result.interval_pp.high / 100
        assert score(low, gained, lost, total) == pytest.approx(Z, rel=1e-4)
        assert score(high, gained, lost, total) == pytest.approx(-Z, rel=1e-4)
        assert result.diff_pp == pytest.approx(100 * (gained - lost) / total)

    def test_agresti_example(self) -> None:
        """Approval ratings of Agresti (2002, table 10.1): -4.0 points, Wald interval -5.9 to -2.1."""
        result = compare_paired(*pair(86, 150, 1_600 - 236))
        assert result.diff_pp == pytest.approx(-4.0)
        assert result.interval_pp.low == pytest.approx(-5.9, abs=0.05)
        assert result.interval_pp.high == pytest.approx(-2.1, abs=0.05)
        assert result.verdict == "loss"

    @fixed
    @given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 500))
    def test_verdict_p_value_and_mirror_image(self, gained: int, lost: int, both: int) -> None:
        variant, reference = pair(gained, lost, both + 1)
        result = compare_paired(variant, reference)
        assert result.interval_pp.contains(result.diff_pp)
        assert (result.verdict == "tie") == result.interval_pp.contains(0.0)
        tail = float(scipy_stats.binom.cdf(min(gained, lost), gained + lost, 0.5))
        assert result.mcnemar_p == pytest.approx(min(1.0, 2 * tail))
        mirrored = compare_paired(reference, variant)
        assert mirrored.diff_pp == pytest.approx(-result.diff_pp)
        assert mirrored.interval_pp.low == pytest.approx(-result.interval_pp.high, abs=1e-6)
        assert mirrored.mcnemar_p == pytest.approx(result.mcnemar_p)

    def test_more_images_turn_a_tie_into_a_gain(self) -> None:
        assert compare_paired(*pair(6, 2, 92)).verdict == "tie"
        assert compare_paired(*pair(60, 20, 920)).verdict == "gain"
        assert compare_paired(*pair(20, 60, 920)).verdict == "loss"

    def test_equal_answers_are_a_tie_that_is_not_certain(self) -> None:
        result = compare_paired(*pair(0, 0, 1_000))
        assert (result.diff_pp, result.mcnemar_p, result.verdict) == (0.0, 1.0, "tie")
        assert 0.3 < result.interval_pp.half_width < 0.5

    def test_opposite_answers_stay_within_100_points(self) -> None:
        result = compare_paired(flags(1, 1, 1, 1, 1, 1, 1, 1), flags(0, 0, 0, 0, 0, 0, 0, 0))
        assert result.interval_pp.high == 100.0
        assert result.verdict == "gain"

    @pytest.mark.parametrize(
        ("correct", "reference"),
        [
            (flags(), flags()),
            (flags(1, 0), flags(1)),
            (np.ones((2, 2), dtype=np.bool_), np.ones((2, 2), dtype=np.bool_)),
            (np.ones(3), np.ones(3)),
        ],
    )
    def test_refuses_what_is_not_paired_booleans(
        self, correct: NDArray[np.bool_], reference: NDArray[np.bool_]
    ) -> None:
        with pytest.raises(ValueError, match="arrays"):
            compare_paired(correct, reference)


class TestJudgeMargin:
    def test_equal_answers_need_as_many_images_as_the_score_interval_says(self) -> None:
        # Without a differing image the bad end is -z^2 / (n + z^2): 0.5 pp at n = 199 z^2 = 764.4.
        found = judge_margin(0, 0, 50, 0.5)
        assert (found.verdict, found.more_images) == ("not shown", 765 - 50)
        assert judge_margin(0, 0, 765, 0.5).verdict == "within the margin"

    @pytest.mark.parametrize(("gained", "lost", "settled"), [(3, 3, "within the margin"), (0, 6, "worse")])
    def test_the_images_that_are_named_settle_it_and_fewer_do_not(
        self, gained: int, lost: int, settled: str
    ) -> None:
        total = 800
        found = judge_margin(gained, lost, total, 0.5)
        assert found.verdict == "not shown"
        assert found.more_images > 0
        enough = math.ceil(found.more_images / total) + 1
        assert judge_margin(enough * gained, enough * lost, enough * total, 0.5).verdict == settled
        few = enough - 1
        assert judge_margin(few * gained, few * lost, few * total, 0.5).verdict == "not shown"

    def test_a_loss_beyond_the_margin_is_worse(self) -> None:
        assert judge_margin(10, 200, 5_000, 0.5).verdict == "worse"

    def test_a_difference_that_is_the_margin_needs_more_images_than_there_are(self) -> None:
        found = judge_margin(0, 5, 1_000, 0.5)
        assert (found.verdict, found.more_images) == ("not shown", 0)

    def test_the_confidence_decides(self) -> None:
        verdicts = [judge_margin(10, 10, 4_000, 0.25, level).verdict for level in (0.8, 0.99)]
        assert verdicts == ["within the margin", "not shown"]

    def test_a_margin_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="margin"):
            judge_margin(1, 1, 100, 0.0)


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
