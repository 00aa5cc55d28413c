from __future__ import annotations

import numpy as np
import pytest

from quant_explorer.analysis.accuracy import (
    Hits,
    accuracy_of,
    agreement_of,
    find_hits,
    ranked_values,
    tied_with_best,
)
from quant_explorer.core.measurement import Predictions, ReportSplit

SPLIT = ReportSplit("split", "toy", ("even", "odd"), tuple(number % 2 for number in range(200)))
ALL = np.arange(200)


def hits(wrong: list[int], positions: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = ALL) -> Hits:
    return Hits(positions, ~np.isin(positions, wrong))


def test_a_difference_whose_interval_holds_zero_is_a_tie() -> None:
    accuracy = accuracy_of(hits([0, 2, 4]), 200, SPLIT, hits([0]), is_baseline=False)
    assert accuracy.diff_pp == pytest.approx(-1.0)
    assert accuracy.diff_ci_pp is not None
    assert accuracy.diff_ci_pp.contains(0.0)
    assert accuracy.verdict == "tie"


@pytest.mark.parametrize(("wrong", "reference", "verdict"), [(60, 0, "loss"), (0, 60, "gain")])
def test_a_clear_difference_has_its_sign(wrong: int, reference: int, verdict: str) -> None:
    accuracy = accuracy_of(
        hits(list(range(wrong))), 200, SPLIT, hits(list(range(reference))), is_baseline=False
    )
    assert accuracy.verdict == verdict
    assert {change.verdict for change in accuracy.per_class} == {verdict}


def test_per_class_changes_are_corrected_by_holm() -> None:
    # Six images of one class alone: p = 2 / 2**6 = 0.031, and 0.0625 after correction for two classes.
    accuracy = accuracy_of(hits([0, 2, 4, 6, 8, 10]), 200, SPLIT, hits([1, 199]), is_baseline=False)
    even, odd = accuracy.per_class
    assert even.p_value == pytest.approx(2 / 2**6 * 2)
    assert (even.name, even.images, even.top1) == ("even", 100, 0.94)
    assert even.diff_pp == pytest.approx(-6.0)
    assert even.verdict == "tie"
    assert odd.diff_pp == pytest.approx(2.0)


def test_comparison_is_on_the_images_both_saw() -> None:
    some = np.array([5, 3, 1, 150])
    accuracy = accuracy_of(hits([3, 5], some), 4, SPLIT, hits([3, 5, 7, 9, 11]), is_baseline=False)
    assert (accuracy.images, accuracy.paired_images) == (4, 4)
    assert accuracy.top1 == 0.5
    assert accuracy.diff_pp == 0.0


def test_hits_are_found_at_any_order_of_positions() -> None:
    hits = Hits(np.array([9, 4, 7]), np.array([True, False, True]))
    assert hits.at(np.array([4, 9])).tolist() == [False, True]


def test_a_class_that_was_not_scored_has_a_reason() -> None:
    evens = ALL[::2]
    accuracy = accuracy_of(hits([], evens), 100, SPLIT, hits([]), is_baseline=False)
    assert accuracy.per_class[1].top1 is None
    assert set(accuracy.per_class[1].reasons) == {"top1", "diff_pp", "p_value", "verdict"}


def test_without_a_common_image_nothing_is_compared() -> None:
    accuracy = accuracy_of(hits([], ALL[:10]), 10, SPLIT, hits([], ALL[10:]), is_baseline=False)
    assert accuracy.verdict is None
    assert set(accuracy.reasons) == {
        "diff_pp",
        "diff_ci_pp",
        "mcnemar_p",
        "verdict",
        "non_inferiority",
    }


def test_an_untrained_variant_is_right_where_the_baseline_agrees() -> None:
    baseline = Predictions((0, 1, 2, 3), (1, 1, 1, 0), 4, trained=False)
    variant = Predictions((1, 2, 3, 9), (1, 0, 0, 1), 4, trained=False)
    found = find_hits(variant, SPLIT.labels, baseline)
    assert found is not None
    assert found.positions.tolist() == [1, 2, 3]
    assert found.right.tolist() == [True, False, True]
    assert find_hits(Predictions((9,), (1,), 1, trained=False), SPLIT.labels, baseline) is None
    assert find_hits(variant, SPLIT.labels, None) is None


def test_the_baseline_agrees_with_itself_exactly() -> None:
    agreement = agreement_of(hits([]), None, is_baseline=True)
    assert (agreement.top1_agreement_ci.low, agreement.top1_agreement_ci.high) == (1.0, 1.0)
    assert agreement_of(hits([]), 40.0, is_baseline=False).top1_agreement_ci.low < 1.0


def test_ranked_value_is_the_accuracy_of_whoever_saw_everything() -> None:
    baseline, variant = hits(list(range(30))), hits(list(range(50)))
    values = ranked_values(variant, baseline)
    assert values is not None
    assert values.tolist() == variant.right.tolist()


def test_ranked_value_of_a_subset_is_the_baselines_plus_the_paired_difference() -> None:
    baseline = hits(list(range(30)))
    variant = hits([150, 151], ALL[100:])
    values = ranked_values(variant, baseline)
    assert values is not None
    assert values.shape == (200,)
    assert values.mean() == pytest.approx(170 / 200 - 2 / 100)
    assert ranked_values(hits([], ALL[:5]), hits([], ALL[5:])) is None


def test_ties_with_the_best_are_by_paired_difference() -> None:
    one, near, far = hits([1]).right, hits([2, 3]).right, hits(list(range(40, 80))).right
    assert tied_with_best([far, near, one]) == (2, 1)
