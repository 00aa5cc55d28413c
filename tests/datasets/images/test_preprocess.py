from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from quant_explorer.core.data.dataset import Dataset, Images, InputSpec
from quant_explorer.core.errors import DataError
from quant_explorer.datasets import input_spec, prepare
from quant_explorer.datasets.images.framing import frame

STREAM = np.random.default_rng(0)


def dataset(channels: int) -> Dataset:
    pixels = STREAM.integers(0, 256, (8, 6, 5, channels), np.uint8)
    images = Images(pixels, np.arange(8), np.zeros(8, np.int64))
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.5, 0.6, 0.7)[:channels]
    return Dataset("toy", ("a", "b"), images, images, images, images, mean, std, False, "digest")


def test_normalized_channels_first_contiguous_float32() -> None:
    data = dataset(3)
    spec = input_spec(data, data.image_shape)
    assert spec == InputSpec((3, 6, 5), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    batch = prepare(data.train.pixels, spec)
    assert batch.dtype == np.float32
    assert batch.shape == (8, 3, 6, 5)
    assert batch.flags.c_contiguous
    expected = (data.train.pixels / 255 - np.array(data.mean)) / np.array(data.std)
    assert np.allclose(batch, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_grey_is_repeated_for_a_model_of_three_channels() -> None:
    data = dataset(1)
    spec = input_spec(data, (3, 6, 5))
    assert spec == InputSpec((3, 6, 5), (0.1,) * 3, (0.5,) * 3)
    batch = prepare(data.train.pixels, spec)
    assert batch.shape == (8, 3, 6, 5)
    assert (batch[:, 0] == batch[:, 1]).all()
    assert (batch[:, 0] == batch[:, 2]).all()
    assert np.allclose(batch[:, 0], (data.train.pixels[..., 0] / 255 - 0.1) / 0.5, atol=1e-6)


def test_rgb_becomes_luma_for_a_model_of_one_channel() -> None:
    data = dataset(3)
    spec = input_spec(data, (1, 6, 5))
    assert spec.mean == (round(0.299 * 0.1 + 0.587 * 0.2 + 0.114 * 0.3, 6),)
    assert spec.std == (round(0.299 * 0.5 + 0.587 * 0.6 + 0.114 * 0.7, 6),)
    levels = prepare(data.train.pixels, InputSpec((1, 6, 5), (0.0,), (1.0,))) * 255
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in data.train.pixels]
    assert np.abs(levels[:, 0] - np.stack(expected)).max() <= 1.001
    white = np.full((1, 6, 5, 3), 255, np.uint8)
    assert (prepare(white, InputSpec((1, 6, 5), (0.0,), (1.0,))) == 1).all()


def test_values_may_go_up_to_255() -> None:
    pixels = dataset(3).train.pixels
    wide = prepare(pixels, InputSpec((3, 6, 5), (127.0,) * 3, (128.0,) * 3, value_range=255.0))
    assert np.allclose(wide, (pixels.transpose(0, 3, 1, 2).astype(float) - 127) / 128, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_framed_unless_they_were_when_decoded(channels: int) -> None:
    data = dataset(channels)
    spec = InputSpec((channels, 6, 5), (0.0,) * channels, (1.0,) * channels, resize=10)
    levels = np.round(prepare(data.train.pixels, data.remaining(spec)) * 255)
    for image, got in zip(data.train.pixels, levels, strict=True):
        expected = np.asarray(frame(Image.fromarray(image.squeeze()), spec)).reshape(6, 5, channels)
        assert (got.transpose(1, 2, 0) == expected).all()
    framed = replace(data, framed=True)
    untouched = np.round(prepare(data.train.pixels, framed.remaining(spec)) * 255)
    assert (untouched == data.train.pixels.transpose(0, 3, 1, 2)).all()


def test_no_images_give_an_empty_batch() -> None:
    spec = InputSpec((3, 12, 12), (0.0,) * 3, (1.0,) * 3)
    assert prepare(np.zeros((0, 6, 5, 3), np.uint8), spec).shape == (0, 3, 12, 12)


def test_other_channel_counts_are_refused() -> None:
    data = dataset(3)
    with pytest.raises(DataError, match="takes 4 channels and the images have 3"):
        input_spec(data, (4, 6, 5))
    with pytest.raises(DataError, match="takes 4 channels"):
        prepare(data.train.pixels, InputSpec((4, 6, 5), (0.0,) * 4, (1.0,) * 4))
