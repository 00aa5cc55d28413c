"""Images near white and models whose weights all reach for the largest value: 8-bit sums at their largest.

Kernels that add products in 16 bits overflow on them, and then all classes look alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch

if TYPE_CHECKING:
    from torch import nn

CLASSES: Final = 4
LINEAR_SHAPE: Final = (3, 32, 32)
NETWORK_SHAPE: Final = (16, 8, 8)
_NETWORK_TENSORS: Final = 9
_NETWORK_LAYERS: Final = 3
_IMAGES: Final = 16
_DARK, _BRIGHT, _NOISE = 0.90, 0.97, 0.03
_FEATURES: Final = 3 * 32 * 32
# Neighbours are added in pairs or fours; in runs of this length they do not cancel.
_RUN: Final = 8


def labels() -> NDArray[np.int64]:
    """Return the class of each image that this module makes."""
    return np.arange(_IMAGES) % CLASSES


def linear_model() -> nn.Sequential:
    """Return Flatten and Linear(3072, 4) with weights of +-1/3072, as many of each sign in every row.

    The first weight of a row is 1 % larger, so that no other lies between two steps.
    """
    import torch
    from torch import nn

    model = nn.Sequential(nn.Flatten(), nn.Linear(_FEATURES, CLASSES))
    weight = _signs() / _FEATURES
    weight[:, 0] *= 1.01
    with torch.no_grad():
        model.get_parameter("1.weight").copy_(torch.from_numpy(weight))
        model.get_parameter("1.bias").zero_()
    return model.eval()


def linear_images() -> Batch:
    """Return images (16, 3, 32, 32) of 0.90 to 1.00, brighter where the row of their class is positive."""
    return _images(_signs()[labels()] > 0).reshape(_IMAGES, *LINEAR_SHAPE)


def network() -> nn.Sequential:
    """Return convolution, SiLU, depthwise convolution, SiLU, mean and linear layer, all of them averages.

    Each class has four neighbouring channels of the image to itself. No error grows on its way.
    """
    import torch
    from torch import nn

    channels = NETWORK_SHAPE[0]
    model = nn.Sequential(
        nn.Conv2d(channels, channels, 3),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, groups=channels),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, CLASSES),
    )
    own = torch.from_numpy(_own_channels())
    copies = channels // CLASSES
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.get_parameter("0.weight").add_(
            own.repeat_interleave(copies, 0)[:, :, None, None] / (9 * copies)
        )
        model.get_parameter("2.weight").fill_(1 / 9)
        model.get_parameter("6.weight").add_(own / copies)
    return model.eval()


def network_images() -> Batch:
    """Return images (16, 16, 8, 8) of 0.90 to 1.00, brighter in the channels of their class."""
    bright = (_own_channels()[labels()] > 0)[:, :, None, None]
    return _images(np.broadcast_to(bright, (_IMAGES, *NETWORK_SHAPE)))


def largest_error(weight_levels: float, activation_levels: int) -> float:
    """Return that of `network`, as a share of its largest logit: half a step for each rounding of a value.

    `weight_levels` are steps from 0 to the largest weight, `activation_levels` steps of a tensor's range.
    """
    return 0.5 * (_NETWORK_TENSORS / activation_levels + _NETWORK_LAYERS / weight_levels)


def _images(bright: NDArray[np.bool_]) -> Batch:
    noise = np.random.default_rng(13).uniform(0, _NOISE, bright.shape)
    return (np.where(bright, _BRIGHT, _DARK) + noise).astype(np.float32)


def _signs() -> NDArray[np.float64]:
    runs = np.repeat([1.0, -1.0], _FEATURES // _RUN // 2)
    rng = np.random.default_rng(5)
    return np.stack([rng.permutation(runs).repeat(_RUN) for _ in range(CLASSES)])


def _own_channels() -> NDArray[np.float32]:
    """Return (4, 16): 1 where the channel is the class's own."""
    return np.eye(CLASSES, dtype=np.float32).repeat(NETWORK_SHAPE[0] // CLASSES, axis=1)
