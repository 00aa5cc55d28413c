import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_explorer.core.errors import WorkerError
from quant_explorer.metrics.accuracy import Scored, check_logits, concatenate, score


def scored(logits: object, positions: object = None) -> Scored:
    array = np.asarray(logits, np.float32)
    return Scored(np.asarray(np.arange(len(array)) if positions is None else positions, np.int64), array)


def test_top1_and_top5() -> None:
    """Seven classes; the label is the largest, the fifth largest, the sixth largest."""
    row = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    found = score(scored([row, row, row]), np.array([0, 4, 5]), trained=True, reference=None)
    assert found.positions == (0, 1, 2)
    assert found.top1 == (0, 0, 0)
    assert found.top5_hits == 2
    assert found.trained
    assert found.sqnr_db is None
    assert all(type(item) is int for item in found.positions + found.top1)


def test_with_five_classes_or_fewer_the_top5_are_all() -> None:
    labels = np.array([0, 1, 2, 1])
    found = score(scored(np.eye(3)[[0, 0, 0, 1]]), labels, trained=False, reference=None)
    assert found.top5_hits == 4
    assert found.top1 == (0, 0, 0, 1)
    assert not found.trained


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(2, 12), st.integers(0, 10**6))
def test_against_sorting(images: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.permuted(np.tile(np.arange(classes, dtype=np.float32), (images, 1)), axis=1)
    labels = rng.integers(0, classes, images)
    found = score(scored(logits), labels, trained=True, reference=None)
    ranked = np.argsort(-logits, axis=1)
    assert found.top1 == tuple(ranked[:, 0])
    assert found.top5_hits == sum(label in row[:5] for label, row in zip(labels, ranked, strict=True))


def test_a_subset_is_compared_with_its_own_labels() -> None:
    labels = np.array([9, 9, 1, 9, 0, 9])
    wide = np.zeros((2, 10))
    wide[0, 1] = wide[1, 0] = 1
    wide[:, 2:6] = 0.5
    found = score(scored(wide, [2, 4]), labels, trained=True, reference=None)
    assert found.positions == (2, 4)
    assert found.top1 == (1, 0)
    assert found.top5_hits == 2


def test_sqnr_is_over_the_images_that_both_saw() -> None:
    """In whatever order; the images of only one of them would give another figure."""
    labels = np.zeros(10, np.int64)
    reference = scored([[1e6, 1e6], [6.0, 0.0], [0.0, 8.0]], [9, 3, 1])
    subset = scored([[0.0, 7.2], [6.6, 0.0], [5.0, 5.0]], [1, 3, 7])
    found = score(subset, labels, trained=False, reference=reference)
    assert found.sqnr_db == pytest.approx(20.0, abs=1e-5)
    apart = score(scored([[1.0, 1.0]], [0]), labels, trained=False, reference=reference)
    assert apart.sqnr_db is None


def test_good_logits_pass() -> None:
    check_logits(np.zeros((3, 4), np.float32), 3, 4)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (4, 3), (3,), (3, 4, 1), (0, 4)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(WorkerError, match=r"outputs have shape .*, expected \(3, 4\)"):
        check_logits(np.zeros(shape, np.float32), 3, 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite(value: float) -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2:] = value
    with pytest.raises(WorkerError, match="outputs of 1 of 3 images are not finite"):
        check_logits(logits, 3, 4)


def test_concatenate_keeps_images_with_their_positions() -> None:
    whole = concatenate(iter([scored([[1.0, 2.0]], [5]), scored([[3.0, 4.0], [5.0, 6.0]], [2, 0])]))
    np.testing.assert_array_equal(whole.positions, [5, 2, 0])
    np.testing.assert_array_equal(whole.logits, [[1, 2], [3, 4], [5, 6]])
