"""Pools by computed weights, resampling at computed places, and mixing by frequencies."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.testing.zoo.specimen import Specimen, TokenClassifier, classifier, convolution


class _SoftPool(nn.Module):
    """The mean over 2x2 pixels, weighted by exp(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        weights = torch.exp(x)
        return functional.avg_pool2d(x * weights, 2) / functional.avg_pool2d(weights, 2)


class _AttentiveStatistics(nn.Module):
    """Mean and deviation of each channel over two places, weighted by a softmax (ECAPA-TDNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = convolution(8, 8)
        self.scores = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.convolution(x).unflatten(3, (8, 2))
        weights = self.scores(x).unflatten(3, (8, 2)).softmax(-1)
        mean = (weights * rows).sum(-1)
        squares = (weights * rows * rows).sum(-1)
        deviation = (squares - mean * mean).clamp(min=1e-4).sqrt()
        return torch.cat([mean, deviation], 3)


class _SpatialTransformer(nn.Module):
    """A map resampled at places that a linear layer computes for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Linear(8 * 16, 6)
        self.convolution = convolution(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changes = 0.3 * torch.tanh(self.places(functional.avg_pool2d(x, 4).flatten(1)))
        identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], device=x.device)
        grid = functional.affine_grid((changes + identity).view(-1, 2, 3), list(x.shape), align_corners=False)
        result: torch.Tensor = self.convolution(functional.grid_sample(x, grid, align_corners=False))
        return result


class _FourierMixing(nn.Module):
    """Tokens mixed by the real part of their 2-d Fourier transform, and two linear layers (FNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = x + 0.1 * torch.fft.fft2(x).real
        result: torch.Tensor = mixed + self.out(functional.gelu(self.hidden(mixed)))
        return result


SPECIMENS = (
    Specimen("soft_pool", "SoftPool: a mean weighted by exp(x)", lambda: classifier(_SoftPool(), size=8)),
    Specimen(
        "attentive_statistics",
        "mean and deviation weighted by a softmax",
        lambda: classifier(_AttentiveStatistics()),
    ),
    Specimen(
        "spatial_transformer",
        "affine_grid and grid_sample at computed places",
        lambda: classifier(_SpatialTransformer()),
    ),
    Specimen(
        "fourier_mixing",
        "FNet: tokens mixed by a Fourier transform",
        lambda: TokenClassifier(_FourierMixing()),
    ),
)
