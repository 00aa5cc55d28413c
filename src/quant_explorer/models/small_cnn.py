"""small_cnn: a plain VGG-style network for images of about 32 x 32."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_explorer.core.errors import ModelError
from quant_explorer.models.architecture import Shape

if TYPE_CHECKING:
    from torch import nn

WIDTHS = (32, 64, 128)
SMALLEST_SIDE = 2 ** len(WIDTHS)


@dataclass(frozen=True)
class SmallCnn:
    """Three blocks (32, 64, 128) of two [3x3 conv, batch norm, ReLU] and 2x2 max pool, then linear.

    288,746 parameters at 3 channels and 10 classes. Convolutions have padding 1 and no bias. No module is
    used twice and there are no quantization stubs, so every runtime can fuse and quantize it as it is.
    """

    name: str = "small_cnn"
    description: str = "six 3x3 convolutions and a linear layer, 288,746 parameters"

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of the images: it takes 1 or 3 channels, and any size of at least 8 x 8."""
        return image_shape

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the network; raises ModelError for images under 8 x 8."""
        from torch import nn

        channels, height, width = input_shape
        if min(height, width) < SMALLEST_SIDE:
            raise ModelError(
                f"small_cnn: images of {width} x {height} are too small. "
                f"Allowed: at least {SMALLEST_SIDE} x {SMALLEST_SIDE}."
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(zip((channels, *WIDTHS), WIDTHS, strict=False), start=1):
            layers[f"block{number}"] = _block(before, after)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["classifier"] = nn.Linear(WIDTHS[-1], classes)
        return nn.Sequential(layers)


def _block(before: int, after: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(before, after, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(after),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(after, after, 3, padding=1, bias=False),
            bn2=nn.BatchNorm2d(after),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
        )
    )
