"""From decoded pixels to what a model takes: channels, size, normalization."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.data.dataset import Dataset, InputSpec
from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import DataError
from quant_explorer.datasets.images.framing import frame

# Luma of ITU-R BT.601, which Pillow's convert("L") uses too.
LUMA = (0.299, 0.587, 0.114)


def data_preprocessing(dataset: Dataset, channels: int) -> Preprocessing:
    """Return how the images of `dataset` are prepared where neither an option nor the model says so.

    A grey data set's mean and std are repeated for three channels. For a grey model on RGB images, the
    mean is the luma of the means, which is exact, and the std the luma of the stds, which is that of
    fully correlated channels: an upper bound. Raises DataError when the channel counts are neither equal
    nor 1 and 3.
    """
    have, height, width = dataset.image_shape
    _check_channels(have, channels)
    mean, std = dataset.mean, dataset.std
    if have == 1:
        mean, std = mean * channels, std * channels
    elif channels == 1:
        mean, std = ((round(float(np.dot(LUMA, values)), 6),) for values in (mean, std))
    return Preprocessing((height, width), None, None, "bilinear", True, channels, mean, std, 1.0)


def input_spec(dataset: Dataset, shape: tuple[int, int, int]) -> InputSpec:
    """Return how the images of `dataset` are prepared for a model that takes `shape` (C, H, W).

    Raises DataError when the channel counts are neither equal nor 1 and 3.
    """
    data = data_preprocessing(dataset, shape[0])
    return InputSpec(shape, data.mean or (), data.std or ())


def prepare(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Turn images (n, h, w, c) into a contiguous batch (n, C, H, W), `(value - mean) / std`.

    A value is pixel / 255 x `value_range`. Grey is repeated for three channels, RGB is reduced to luma for
    one. Images are scaled and cropped as `framing.frame` does.

    Raises DataError when the channel counts are neither equal nor 1 and 3.
    """
    channels, height, width = spec.shape
    _check_channels(pixels.shape[3], channels)
    if pixels.shape[3] == 3 and channels == 1:
        pixels = _luma(pixels)
    if pixels.shape[1:3] != (height, width) or spec.resize is not None:
        pixels = _frame(pixels, spec)
    batch = np.empty((len(pixels), channels, height, width), np.float32)
    levels = np.arange(256) / 255 * spec.value_range
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


def _frame(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    from PIL import Image

    _, height, width = spec.shape
    framed = np.empty((len(pixels), height, width, pixels.shape[3]), np.uint8)
    for position, image in enumerate(pixels):
        picture = Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
        framed[position] = np.asarray(frame(picture, spec)).reshape(height, width, -1)
    return framed
