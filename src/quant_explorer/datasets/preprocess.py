"""From decoded pixels to what a model takes: channels, size, normalization."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.dataset import Dataset, InputSpec
from quant_explorer.core.errors import DataError

# Luma of ITU-R BT.601, which Pillow's convert("L") uses too.
LUMA = (0.299, 0.587, 0.114)


def input_spec(dataset: Dataset, shape: tuple[int, int, int]) -> InputSpec:
    """Return how the images of `dataset` are prepared for a model that takes `shape` (C, H, W).

    A grey data set's mean and std are repeated for three channels. For a grey model on RGB images, the
    mean is the luma of the means, which is exact, and the std the luma of the stds, which is that of
    fully correlated channels: an upper bound.

    Raises DataError when the channel counts are neither equal nor 1 and 3.
    """
    have, want = dataset.image_shape[0], shape[0]
    _check_channels(have, want)
    if have == want:
        return InputSpec(shape, dataset.mean, dataset.std)
    if have == 1:
        return InputSpec(shape, dataset.mean * 3, dataset.std * 3)
    mean, std = (round(float(np.dot(LUMA, values)), 6) for values in (dataset.mean, dataset.std))
    return InputSpec(shape, (mean,), (std,))


def prepare(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Turn images (n, h, w, c) into a contiguous batch (n, C, H, W), `(pixel / 255 - mean) / std`.

    Grey is repeated for three channels, RGB is reduced to luma for one. Only images of another size
    are resized: to H x W, bilinearly (Pillow, antialiased), without keeping the aspect ratio.

    Raises DataError when the channel counts are neither equal nor 1 and 3.
    """
    channels, height, width = spec.shape
    _check_channels(pixels.shape[3], channels)
    if pixels.shape[3] == 3 and channels == 1:
        pixels = _luma(pixels)
    if pixels.shape[1:3] != (height, width):
        pixels = _resize(pixels, height, width)
    batch = np.empty((len(pixels), channels, height, width), np.float32)
    levels = np.arange(256) / 255
    for channel in range(channels):
        # 256 possible values: looking them up is exact, and faster than computing each pixel.
        table = ((levels - spec.mean[channel]) / spec.std[channel]).astype(np.float32)
        # No index is out of range; looking for one takes half of the time.
        np.take(table, pixels[..., channel % pixels.shape[3]], out=batch[:, channel], mode="clip")
    return batch


def _check_channels(have: int, want: int) -> None:
    if have != want and {have, want} != {1, 3}:
        raise DataError(f"the model takes {want} channels and the images have {have}. Allowed: 1 or 3.")


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    luma: NDArray[np.float64] = np.dot(pixels, np.asarray(LUMA)) + 0.5
    return luma.astype(np.uint8)[..., np.newaxis]


def _resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    from PIL import Image

    resized = np.empty((len(pixels), height, width, pixels.shape[3]), np.uint8)
    for position, image in enumerate(pixels):
        picture = Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        resized[position] = np.asarray(picture).reshape(height, width, -1)
    return resized
