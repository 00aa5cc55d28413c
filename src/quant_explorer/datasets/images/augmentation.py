"""Random changes of training images, on whole batches at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PADDING = 4


def augment(
    pixels: NDArray[np.uint8],
    rng: np.random.Generator,
    mirrored: NDArray[np.bool_],
    *,
    shifted: bool = True,
) -> NDArray[np.uint8]:
    """Pad by 4 and crop each image at its own place, if `shifted`; mirror those that `mirrored` (n) names.

    Takes and returns (n, height, width, channels). Source: He et al., "Deep Residual Learning for
    Image Recognition", 2016, section 4.2.
    """
    cropped = _shift(pixels, rng) if shifted else pixels.copy()
    cropped[mirrored] = cropped[mirrored, :, ::-1]
    return cropped


def _shift(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    count, *shape = pixels.shape
    padded = np.pad(pixels, ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape, axis=(1, 2, 3))
    top, left = rng.integers(0, 2 * _PADDING + 1, size=(2, count))
    cropped: NDArray[np.uint8] = windows[np.arange(count), top, left, 0]
    return cropped
