from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from quant_explorer.core.data.dataset import InputSpec, Interpolation
from quant_explorer.datasets.images.framing import frame

SPEC = InputSpec((3, 24, 20), (), ())
SIZES = [(31, 40), (40, 31), (300, 21), (20, 24), (7, 9), (25, 25)]


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [16, 22, 33])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_scaled_and_cropped_to_the_pixel_as_torchvision_does(
    size: tuple[int, int], resize: int, interpolation: Interpolation
) -> None:
    expected = v2.CenterCrop([24, 20])(v2.Resize(resize, InterpolationMode(interpolation))(picture(size)))
    framed = frame(picture(size), replace(SPEC, resize=resize, interpolation=interpolation))
    assert (np.asarray(framed) == np.asarray(expected)).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [(24, 20), (30, 31), (10, 40)])
def test_scaled_to_height_and_width_as_torchvision_does(
    size: tuple[int, int], resize: tuple[int, int]
) -> None:
    expected = v2.CenterCrop([24, 20])(v2.Resize(resize)(picture(size)))
    assert (np.asarray(frame(picture(size), replace(SPEC, resize=resize))) == np.asarray(expected)).all()


def test_without_antialias_as_torchvision_does_with_a_tensor() -> None:
    tensor = v2.functional.pil_to_tensor(picture((60, 50)))
    expected = v2.CenterCrop([24, 20])(v2.Resize(26, antialias=False)(tensor)).permute(1, 2, 0).numpy()
    framed = frame(picture((60, 50)), replace(SPEC, resize=26, antialias=False))
    assert (np.asarray(framed) == expected).all()


@pytest.mark.parametrize("size", SIZES)
def test_without_a_shorter_side_the_image_covers_what_the_model_takes(size: tuple[int, int]) -> None:
    white = frame(Image.new("RGB", size, "white"), SPEC)
    assert white.size == (20, 24)
    assert (np.asarray(white) == 255).all()


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = picture((20, 24))
    assert (np.asarray(frame(image, SPEC)) == np.asarray(image)).all()
