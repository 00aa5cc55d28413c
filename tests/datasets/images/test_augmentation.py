from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from quant_explorer.datasets import augment


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (64, 12, 10, 3), dtype=np.uint8)


def crops_of(image: NDArray[np.uint8], *, mirrored: bool) -> set[bytes]:
    height, width, _ = image.shape
    padded = np.zeros((height + 8, width + 8, 3), np.uint8)
    padded[4:-4, 4:-4] = image
    crops = (padded[top : top + height, left : left + width] for top in range(9) for left in range(9))
    return {np.ascontiguousarray(crop[:, ::-1] if mirrored else crop).tobytes() for crop in crops}


def test_crops_come_from_the_padded_image(pixels: NDArray[np.uint8]) -> None:
    before = pixels.copy()
    cropped = augment(pixels, np.random.default_rng(1), np.zeros(len(pixels), np.bool_))
    assert cropped.shape == pixels.shape
    assert cropped.dtype == np.uint8
    assert cropped.flags.c_contiguous
    np.testing.assert_array_equal(pixels, before)
    for image, crop in zip(pixels, cropped, strict=True):
        assert crop.tobytes() in crops_of(image, mirrored=False)
    # Each at its own place.
    assert (cropped != pixels).any(axis=(1, 2, 3)).mean() > 0.5


def test_those_named_are_mirrored(pixels: NDArray[np.uint8]) -> None:
    mirrored = np.arange(len(pixels)) % 3 == 0
    crops = augment(pixels, np.random.default_rng(1), mirrored)
    assert crops.shape == pixels.shape
    assert crops.dtype == np.uint8
    for image, crop, was_mirrored in zip(pixels, crops, mirrored, strict=True):
        assert crop.tobytes() in crops_of(image, mirrored=bool(was_mirrored))
