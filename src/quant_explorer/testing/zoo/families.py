"""Ten families of torchvision with random weights, at 64x64 pixels: what people bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torchvision import models

from quant_explorer.core.registry import Registry
from quant_explorer.testing.zoo.specimen import Specimen

SHAPE: Final = (3, 64, 64)
SETTLING_IMAGES: Final = 16


def _vit() -> nn.Module:
    model: nn.Module = models.vit_b_16(image_size=SHAPE[1])
    head = model.get_submodule("heads.head")
    # Its head begins at zero, which would make all logits 0.
    nn.init.normal_(head.get_parameter("weight"), std=0.05)
    return model


def _convnext() -> nn.Module:
    model: nn.Module = models.convnext_tiny()
    for name, parameter in model.named_parameters():
        # Of 1e-6 at first: no block would matter.
        if name.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.1, 0.5)
    return model


_FAMILIES: Final[dict[str, Callable[[], nn.Module]]] = {
    "resnet18": models.resnet18,
    "mobilenet_v3_large": models.mobilenet_v3_large,
    "efficientnet_b0": models.efficientnet_b0,
    "shufflenet_v2_x1_0": models.shufflenet_v2_x1_0,
    "densenet121": models.densenet121,
    "googlenet": lambda: models.googlenet(init_weights=False),
    "regnet_y_400mf": models.regnet_y_400mf,
    "convnext_tiny": _convnext,
    "vit_b_16": _vit,
    "swin_t": models.swin_t,
}


def _settle_statistics(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Let batch norms have the statistics of `images`, so that activations neither vanish nor explode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # The mean over all batches, not a decaying one.
            module.momentum = None
    with torch.no_grad():
        model.train()(images)
    return model


def _specimen(name: str, make: Callable[[], nn.Module]) -> Specimen:
    images = Specimen(name, "", nn.Identity, SHAPE).images(SETTLING_IMAGES, seed=1)
    return Specimen(
        name,
        "torchvision",
        lambda: _settle_statistics(make(), torch.from_numpy(images)),
        SHAPE,
        settled=True,
    )


FAMILIES: Final[Registry[Specimen]] = Registry(
    "family", {name: _specimen(name, make) for name, make in _FAMILIES.items()}
)
