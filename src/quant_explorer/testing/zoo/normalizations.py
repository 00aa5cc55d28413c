"""Normalizations other than a batch norm behind a convolution."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.testing.zoo.specimen import (
    CLASSES,
    TOKEN_WIDTH,
    Specimen,
    TokenClassifier,
    classifier,
    convolution,
    enliven,
)


class _ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm over channels in the last place, a layer scale and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.expand, self.reduce = nn.Linear(8, 32), nn.Linear(32, 8)
        self.layer_scale = nn.Parameter(torch.full((8, 1, 1), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(functional.gelu(self.expand(y))).permute(0, 3, 1, 2)
        result: torch.Tensor = x + self.layer_scale * y
        return result


class _FunctionalLayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8) + 0.5)
        self.bias = nn.Parameter(0.1 * torch.randn(8))
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x).permute(0, 2, 3, 1)
        y = functional.layer_norm(y, (8,), self.weight, self.bias, 1e-6)
        return functional.relu(y.permute(0, 3, 1, 2))


class _RootMeanSquareNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(TOKEN_WIDTH) + 0.5)
        self.linear = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        result: torch.Tensor = x + self.linear(scaled * self.weight)
        return result


class _UnitLength(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * functional.normalize(x, dim=1)


def _linear_batch_norm() -> nn.Module:
    return enliven(
        nn.Sequential(
            convolution(3, 8),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, CLASSES),
        )
    )


def _tokens(*layers: nn.Module) -> nn.Module:
    return TokenClassifier(nn.Sequential(*layers))


SPECIMENS = (
    Specimen("linear_batch_norm", "linear layer, BatchNorm1d, ReLU", _linear_batch_norm),
    Specimen(
        "batch_norm_alone",
        "batch norm behind an average pool, which nothing can fold",
        lambda: classifier(nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(8), nn.ReLU()), size=8),
    ),
    Specimen(
        "layer_norm",
        "layer norm over tokens, linear, GELU, linear",
        lambda: _tokens(
            nn.LayerNorm(TOKEN_WIDTH),
            nn.Linear(TOKEN_WIDTH, 32),
            nn.GELU(),
            nn.Linear(32, TOKEN_WIDTH),
        ),
    ),
    Specimen(
        "layer_norm_channels",
        "ConvNeXt's block: layer norm over permuted channels, layer scale",
        lambda: classifier(_ConvNeXtBlock()),
    ),
    Specimen(
        "functional_layer_norm",
        "functional layer norm with parameters of the model",
        lambda: classifier(_FunctionalLayerNorm()),
    ),
    Specimen("root_mean_square_norm", "RMS norm written out", lambda: _tokens(_RootMeanSquareNorm())),
    Specimen(
        "group_norm",
        "group norm behind a convolution",
        lambda: classifier(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())),
    ),
    Specimen(
        "instance_norm",
        "instance norm with weights, without statistics",
        lambda: classifier(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.ReLU())
        ),
    ),
    Specimen(
        "instance_norm_statistics",
        "instance norm that uses the statistics of training",
        lambda: classifier(
            nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1),
                nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
                nn.ReLU(),
            )
        ),
    ),
    Specimen(
        "local_response_norm",
        "local response norm, as in AlexNet",
        lambda: classifier(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(5, alpha=0.1))
        ),
    ),
    Specimen(
        "unit_length",
        "features divided by their length",
        lambda: classifier(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), _UnitLength())),
    ),
)
