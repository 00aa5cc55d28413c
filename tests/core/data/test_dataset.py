from __future__ import annotations

import numpy as np

from quant_explorer.core.data.dataset import Dataset, Images

PIXELS = np.arange(6 * 2 * 3 * 1, dtype=np.uint8).reshape(6, 2, 3, 1)


def images(*indices: int) -> Images:
    chosen = np.array(indices, dtype=np.int64)
    return Images(PIXELS, chosen, chosen % 2)


def test_positions_count_within_the_split() -> None:
    split = images(5, 0, 3)
    assert len(split) == 3
    np.testing.assert_array_equal(split.take(np.array([2, 0])), PIXELS[[3, 5]])
    np.testing.assert_array_equal(split.take(slice(1, None)), PIXELS[[0, 3]])


def test_splits_share_one_array_of_pixels() -> None:
    assert images(0).pixels is images(1).pixels


def test_image_shape_puts_channels_first() -> None:
    split = images(0)
    dataset = Dataset("toy", ("a", "b"), split, split, split, split, (0.5,), (0.25,), flip=False, digest="d")
    assert dataset.image_shape == (1, 2, 3)
