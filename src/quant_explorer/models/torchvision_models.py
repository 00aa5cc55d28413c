"""Models of torchvision, as `torchvision.models` builds them, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_explorer.models.architecture import Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TorchvisionModel:
    """One of torchvision's classifiers, at the 3 x 224 x 224 it was designed for."""

    name: str
    description: str

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return (3, 224, 224) whatever the images are: they are resized, and grey is repeated."""
        return 3, 224, 224

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the model with a head of `classes` outputs, weights at random."""
        import torchvision.models

        model: nn.Module = torchvision.models.get_model(self.name, weights=None, num_classes=classes)
        return model


MOBILENET_V3_LARGE = TorchvisionModel(
    "mobilenet_v3_large", "depthwise convolutions, squeeze-and-excitation, hard-swish (Howard et al., 2019)"
)
VGG11_BN = TorchvisionModel(
    "vgg11_bn", "eight convolutions and three wide linear layers (Simonyan and Zisserman, 2014)"
)
RESNET18 = TorchvisionModel("resnet18", "residual network of 18 layers (He et al., 2015)")
