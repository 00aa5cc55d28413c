import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_explorer.core.errors import DataError, SettingsError
from quant_explorer.datasets.splits import Indices, apportion, search_size, split


def balanced(train_per_class: int, test_per_class: int, classes: int = 10) -> tuple[Indices, int]:
    names = np.arange(classes)
    labels = np.concatenate([np.repeat(names, train_per_class), np.repeat(names, test_per_class)])
    return labels, train_per_class * classes


def counts(labels: Indices, indices: Indices) -> list[int]:
    return [int(count) for count in np.bincount(labels[indices])]


def test_whole_set_as_the_protocol_asks() -> None:
    labels, train_count = balanced(500, 100)
    splits = split(labels, train_count, seed=0)
    assert counts(labels, splits.search) == [20] * 10
    assert counts(labels, splits.train) == [480] * 10
    assert sorted(counts(labels, splits.calibrate)) == [25] * 4 + [26] * 6
    assert splits.report.tolist() == list(range(5000, 6000))
    assert np.isin(splits.calibrate, splits.train).all()


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 8)), min_size=2, max_size=6),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_splits_are_disjoint_and_complete(
    sizes: list[tuple[int, int]], seed: int, data: st.DataObject
) -> None:
    classes = np.arange(len(sizes))
    labels = np.concatenate([np.repeat(classes, [train for train, _ in sizes]), np.repeat(classes, 8)])
    train_count = sum(train for train, _ in sizes)
    subset = data.draw(st.integers(2, train_count))
    splits = split(labels, train_count, seed=seed, train_subset=subset)
    parts = np.concatenate([splits.train, splits.search])
    assert len(np.unique(parts)) == len(parts) == subset
    assert parts.max() < train_count <= splits.report.min()
    assert len(splits.train) >= 1
    assert len(splits.search) >= 1
    assert len(np.unique(splits.calibrate)) == len(splits.calibrate) == min(256, len(splits.train))
    if len(splits.train) >= len(sizes) and subset > len(sizes):
        drawn = np.bincount(labels[parts], minlength=len(sizes))
        kept = np.bincount(labels[splits.train], minlength=len(sizes))
        assert (kept[drawn > 0] > 0).all(), "search took the only image of a class"


def test_same_seed_same_splits_other_seed_other_splits() -> None:
    labels, train_count = balanced(100, 20)
    first, again, other = (split(labels, train_count, seed=seed) for seed in (3, 3, 4))
    assert first.search.tolist() == again.search.tolist()
    assert first.calibrate.tolist() == again.calibrate.tolist()
    assert first.search.tolist() != other.search.tolist()


def test_subsets_are_balanced_and_nested() -> None:
    labels, train_count = balanced(100, 50)
    small = split(labels, train_count, seed=1, train_subset=200, test_subset=50)
    large = split(labels, train_count, seed=1, train_subset=500, test_subset=205)
    for splits, train, test in ((small, 200, 50), (large, 500, 205)):
        drawn = np.concatenate([splits.train, splits.search])
        assert counts(labels, drawn) == [train // 10] * 10
        share = np.array(counts(labels, splits.report))
        assert share.sum() == test
        assert share.max() - share.min() <= 1
    drawn_small = np.concatenate([small.train, small.search])
    drawn_large = np.concatenate([large.train, large.search])
    assert np.isin(drawn_small, drawn_large).all()
    assert np.isin(small.report, large.report).all()


def test_changing_one_split_leaves_the_others() -> None:
    labels, train_count = balanced(100, 50)
    first = split(labels, train_count, seed=1, train_subset=300)
    second = split(labels, train_count, seed=1, train_subset=300, test_subset=20, calibration_images=5)
    assert first.train.tolist() == second.train.tolist()
    assert first.search.tolist() == second.search.tolist()


def test_200_images_give_every_class_a_search_image() -> None:
    labels, train_count = balanced(500, 100)
    splits = split(labels, train_count, seed=0, train_subset=200)
    assert counts(labels, splits.search) == [1] * 10
    assert len(splits.calibrate) == len(splits.train) == 190


@pytest.mark.parametrize(
    ("per_class", "expected"),
    [([5000] * 10, 2000), ([25] * 10, 10), ([20] * 10, 10), ([2] * 10, 10), ([1] * 10, 1), ([1, 1, 3], 2)],
)
def test_search_size(per_class: list[int], expected: int) -> None:
    assert search_size(np.array(per_class)) == expected


@pytest.mark.parametrize("per_class", [25, 26, 49, 50, 400])
def test_search_is_at_most_four_percent_from_25_images_a_class_on(per_class: int) -> None:
    assert search_size(np.full(10, per_class)) <= 0.04 * 10 * per_class


def test_search_follows_class_sizes_of_an_unbalanced_set() -> None:
    labels = np.concatenate([np.repeat([0, 1, 2], [900, 90, 10]), np.repeat([0, 1, 2], 5)])
    search = counts(labels, split(labels, 1000, seed=0).search)
    assert search == [35, 4, 1]


@given(
    capacity=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_apportion_gives_the_total_within_capacity(capacity: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(capacity)))
    shares = apportion(total, np.array(capacity), np.ones(len(capacity)))
    assert shares.sum() == total
    assert (shares <= capacity).all()
    unfilled = shares[shares < capacity]
    assert len(unfilled) == 0 or shares.max() - unfilled.min() <= 1


@pytest.mark.parametrize("subset", [0, -1, 1, 1001])
def test_train_subset_outside_its_range(subset: int) -> None:
    labels, train_count = balanced(100, 10)
    with pytest.raises(SettingsError, match=rf"--train-subset {subset}\. Allowed: 2 to 1000"):
        split(labels, train_count, seed=0, train_subset=subset)


@pytest.mark.parametrize("subset", [0, -5, 101])
def test_test_subset_outside_its_range(subset: int) -> None:
    labels, train_count = balanced(100, 10)
    with pytest.raises(SettingsError, match=rf"--test-subset {subset}\. Allowed: 1 to 100"):
        split(labels, train_count, seed=0, test_subset=subset)


def test_other_settings_outside_their_range() -> None:
    labels, train_count = balanced(10, 10)
    with pytest.raises(SettingsError, match="calibration images: 0"):
        split(labels, train_count, seed=0, calibration_images=0)
    with pytest.raises(SettingsError, match="--seed -1"):
        split(labels, train_count, seed=-1)


@pytest.mark.parametrize(("train_count", "total"), [(1, 3), (3, 3)])
def test_too_few_images(train_count: int, total: int) -> None:
    with pytest.raises(DataError, match="at least 2 and 1 are needed"):
        split(np.arange(total) % 2, train_count, seed=0)


def test_without_training_images_the_test_images_are_divided() -> None:
    labels = np.repeat(np.arange(50), 6)
    splits = split(labels, 0, seed=3, calibration_images=256)
    parts = (splits.calibrate, splits.search, splits.report)
    assert [len(part) for part in parts] == [30, 12, 258]
    assert len(np.unique(np.concatenate(parts))) == 300
    assert len(splits.train) == 0
    assert len(split(labels, 0, seed=3, test_subset=50).report) == 50


def test_too_few_images_to_divide() -> None:
    with pytest.raises(DataError, match="3 test images and no training images; at least 4 are needed"):
        split(np.array([0, 1, 0]), 0, seed=0)
    with pytest.raises(SettingsError, match="--train-subset 2: the data set has no training images"):
        split(np.arange(8) % 2, 0, seed=0, train_subset=2)
