"""edge_cnn: a network of 5,130 parameters, as small devices run them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_explorer.core.errors import ModelError
from quant_explorer.models.architecture import Shape

if TYPE_CHECKING:
    from torch import nn

WIDTHS = (16, 32)
SMALLEST_SIDE = 2 ** len(WIDTHS)


@dataclass(frozen=True)
class EdgeCnn:
    """Two blocks (16, 32) of [3x3 conv, ReLU, 2x2 max pool], global average pool, linear.

    5,130 parameters at 1 channel and 10 classes: 160 and 4,640 in the convolutions, 330 in the classifier,
    biases included. There is no batch norm, so convolutions have padding 1 and a bias.
    """

    name: str = "edge_cnn"
    description: str = "two 3x3 convolutions and a linear layer, 5,130 parameters"

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of the images: it takes 1 or 3 channels, and any size of at least 4 x 4."""
        return image_shape

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the network; raises ModelError for images under 4 x 4."""
        from torch import nn

        channels, height, width = input_shape
        if min(height, width) < SMALLEST_SIDE:
            raise ModelError(
                f"edge_cnn: images of {width} x {height} are too small. "
                f"Allowed: at least {SMALLEST_SIDE} x {SMALLEST_SIDE}."
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(zip((channels, *WIDTHS), WIDTHS, strict=False), start=1):
            layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["classifier"] = nn.Linear(WIDTHS[-1], classes)
        return nn.Sequential(layers)
