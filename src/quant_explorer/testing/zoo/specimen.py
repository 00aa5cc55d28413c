"""What a specimen of the zoo is, and the frames that its pattern stands in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from quant_explorer.core.contracts import Batch

SHAPE: Final = (3, 16, 16)
CLASSES: Final = 4
TOKEN_WIDTH: Final = 16
_COARSE: Final = 4
_NOISE: Final = 0.15
# Of images scaled to 0..1, as data sets of photographs have it.
_MEAN, _STD = 0.45, 0.25


@dataclass(frozen=True)
class Specimen:
    """A small model of one operator pattern.

    `pattern` says what is special in one line, `make` builds the model for images (n, *shape), `source` is
    a public report of the trouble that the pattern made, if one is known. `settled` models have the
    statistics of real activations already.
    """

    name: str
    pattern: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int] = SHAPE
    source: str = ""
    settled: bool = False

    def model(self, *, seed: int = 0) -> nn.Module:
        """Return the model in evaluation mode, its norms as training leaves them.

        The caller's random state is left as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = self.make()
            if not self.settled:
                settle_norms(model)
        return model.eval()

    def images(self, count: int, *, seed: int = 0) -> Batch:
        """Return `count` normalized images (count, *shape): the first near white, the second near black.

        The others have coarse patterns, noise, and a brightness and contrast of their own.
        """
        rng = np.random.default_rng([seed, 13])
        channels, height, width = self.shape
        rows, columns = -(-height // _COARSE), -(-width // _COARSE)
        coarse = rng.uniform(0, 1, (count, channels, rows, columns))
        detailed = coarse.repeat(_COARSE, axis=2).repeat(_COARSE, axis=3)[:, :, :height, :width]
        contrast, brightness = rng.uniform(0.3, 1, (2, count, 1, 1, 1))
        pixels = brightness * (contrast * detailed + (1 - contrast) / 2)
        pixels[:1], pixels[1:2] = 1.0, 0.0
        pixels += rng.normal(0, _NOISE, pixels.shape) * contrast
        return np.asarray((pixels.clip(0, 1) - _MEAN) / _STD, np.float32)


def settle_norms(model: nn.Module) -> None:
    """Give every normalization weights, biases and statistics that differ from channel to channel."""
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.1, 0.4)
            if not isinstance(module, norms):
                continue
            if module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.1)
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_var is not None:
                assert module.running_mean is not None
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.25, 1.0)


def enliven(model: nn.Module) -> nn.Module:
    """Give layers weights that keep the variance behind a ReLU, and small biases; return `model` itself.

    PyTorch's own let it shrink, so that the biases would decide the logits and all images be alike.
    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    for module in model.modules():
        if isinstance(module, kinds) and module.weight.is_leaf:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)
    return model


def convolution(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return [convolution without bias, batch norm, ReLU], the size kept at stride 1."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def classifier(
    body: nn.Module, *, width: int = 8, channels: int = 8, size: int = 16, inputs: int = 3
) -> nn.Module:
    """Return a network around `body`, which maps (n, width, 16, 16) to (n, channels, size, size).

    Before it a 3x3 convolution with batch norm and ReLU, behind it a pool to 2x2 and a linear layer: logits
    depend on where something is, so that an image differs from the next by more than rounding.
    """
    return enliven(
        nn.Sequential(
            convolution(inputs, width),
            body,
            nn.AvgPool2d(size // 2),
            nn.Flatten(),
            nn.Linear(4 * channels, CLASSES),
        )
    )


class TokenClassifier(nn.Module):
    """Patches of 4x4 pixels as tokens (n, 16, 16) with positions, `body`, a linear layer."""

    def __init__(self, body: nn.Module) -> None:
        """Build the patches, positions and the head."""
        super().__init__()
        self.patches = nn.Conv2d(3, TOKEN_WIDTH, 4, stride=4)
        self.positions = nn.Parameter(0.2 * torch.randn(1, 16, TOKEN_WIDTH))
        self.body = body
        self.head = nn.Linear(16 * TOKEN_WIDTH, CLASSES)
        enliven(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, 16, 16) to logits (n, 4)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: torch.Tensor = self.head(self.body(tokens).flatten(1))
        return logits
