"""An image of any size to the size that a model takes: scaled, then cropped in the centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quant_explorer.core.data.dataset import InputSpec

if TYPE_CHECKING:
    from PIL import Image


def frame(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Return the part of an image that a model sees, of the height and width of `spec`.

    To the pixel what `Resize` and `CenterCrop` of torchvision give for a Pillow image; without `antialias`,
    what they give for a tensor. An image that covers the size exactly and need not be scaled stays as it is.
    """
    _, height, width = spec.shape
    scaled = _scaled_size(image.size, spec)
    if scaled != image.size:
        image = _scale(image, scaled, spec)
    if image.size == (width, height):
        return image
    left, top = _margin(image.width, width), _margin(image.height, height)
    # Pillow fills with zeros what lies outside.
    return image.crop((left, top, left + width, top + height))


def _scaled_size(size: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    width, height = size
    _, wanted_height, wanted_width = spec.shape
    if isinstance(spec.resize, tuple):
        return spec.resize[1], spec.resize[0]
    if spec.resize is not None:
        short, long = sorted(size)
        longer = int(spec.resize * long / short)
        return (spec.resize, longer) if width <= height else (longer, spec.resize)
    if width * wanted_height >= height * wanted_width:
        return max(int(wanted_height * width / height), wanted_width), wanted_height
    return wanted_width, max(int(wanted_width * height / width), wanted_height)


def _scale(image: Image.Image, size: tuple[int, int], spec: InputSpec) -> Image.Image:
    from PIL import Image

    if spec.antialias:
        return image.resize(size, Image.Resampling[spec.interpolation.upper()])
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    tensor = functional.pil_to_tensor(image)
    mode = InterpolationMode(spec.interpolation)
    resized = functional.resize(tensor, list(size[::-1]), interpolation=mode, antialias=False)
    return Image.fromarray(np.ascontiguousarray(resized.permute(1, 2, 0).numpy().squeeze()))


def _margin(have: int, want: int) -> int:
    """Return where a crop begins; torchvision pads what is too small first, and then crops."""
    return -((want - have) // 2) if want > have else round((have - want) / 2.0)
