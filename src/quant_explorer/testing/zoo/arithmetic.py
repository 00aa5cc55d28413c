"""Sums, products and other element-wise functions between layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.testing.zoo.specimen import CLASSES, Specimen, classifier, convolution

Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class _Residual(nn.Module):
    """Two convolutions with batch norms, and a function of the result and the input."""

    def __init__(self, function: Binary) -> None:
        super().__init__()
        self.first = convolution(8, 8)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.second(self.first(x)), x)


class _InPlaceResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(x)
        y += x
        result: torch.Tensor = self.relu(y)
        return result


class _NormalizedInput(nn.Module):
    """The mean and deviation of the pixels inside the model, as buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.9, 0.8, 1.1]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class _BilinearPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = convolution(3, 8)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = self.body(images).flatten(2)
        logits: torch.Tensor = self.head((torch.bmm(flat, flat.transpose(1, 2)) / 64).flatten(1))
        return logits


class _GeneralizedMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        powers = self.convolution(x).clamp(min=1e-6).pow(self.power)
        return functional.avg_pool2d(powers, 4).pow(1 / self.power)


def _gate_split(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    values, gates = torch.tensor_split(torch.cat([y, x], 1), 2, 1)
    return values * gates.sigmoid()


def _chain_in_place(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    y.add_(x).mul_(0.5).clamp_(0, 3)
    return y


def _residual(name: str, pattern: str, function: Binary) -> Specimen:
    return Specimen(name, pattern, lambda: classifier(_Residual(function)))


class _ClampTensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)
        self.low, self.high = nn.Parameter(-torch.rand(8, 1, 1)), nn.Parameter(0.5 + torch.rand(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(self.convolution(x), self.low, self.high)


SPECIMENS = (
    Specimen("clamp_tensors", "clamp to a parameter a channel", lambda: classifier(_ClampTensors())),
    _residual("residual", "a sum without an activation behind it", lambda y, x: y + x),
    _residual("residual_relu", "a sum and ReLU, as in ResNet", lambda y, x: functional.relu(y + x)),
    Specimen("residual_in_place", "y += x and a ReLU in place", lambda: classifier(_InPlaceResidual())),
    _residual("chain_in_place", "y.add_(x).mul_(0.5).clamp_(0, 3), y being returned", _chain_in_place),
    _residual("add_alpha", "torch.add(a, b, alpha=2)", lambda y, x: torch.add(y, x, alpha=2)),
    _residual("add_alpha_1.5", "torch.add(a, b, alpha=1.5)", lambda y, x: torch.add(y, x, alpha=1.5)),
    _residual(
        "add_alpha_relu",
        "torch.add(a, b, alpha=2) and ReLU",
        lambda y, x: functional.relu(torch.add(y, x, alpha=2)),
    ),
    _residual("subtract_alpha", "torch.sub(a, b, alpha=0.5)", lambda y, x: torch.sub(y, x, alpha=0.5)),
    _residual("scalars", "2 * x + 1, 1 - x and a division", lambda y, x: (2 * y + 1) / 3 + (1 - x)),
    _residual("product", "the product of two maps", lambda y, x: y * x),
    _residual("quotient", "the quotient of two maps", lambda y, x: y / (x + 1)),
    _residual("maximum", "the greater of two maps", torch.maximum),
    _residual("clamp", "clamp to -0.5 and 1.5", lambda y, x: torch.clamp(y + x, -0.5, 1.5)),
    _residual("power", "square, square root, absolute value", lambda y, x: (y.pow(2) + x.abs() + 0.1).sqrt()),
    _residual(
        "mish_written_out",
        "x tanh(log(1 + exp(x)))",
        lambda y, x: y * torch.tanh(torch.log(1 + torch.exp(y))) + x,
    ),
    _residual("softplus_tanh", "tanh of a softplus", lambda y, x: y * torch.tanh(functional.softplus(y)) + x),
    _residual("gate_split", "sigmoid of a part, by tensor_split", _gate_split),
    _residual(
        "scaled_up",
        "lengths of 1, multiplied by 8",
        lambda y, x: x + 8 * functional.normalize(y, p=1.0, dim=1),
    ),
    Specimen(
        "gate_joined",
        "a sigmoid and what it is of, concatenated",
        lambda: classifier(_Residual(lambda y, x: torch.cat([torch.sigmoid(y), x], 1)), channels=16),
    ),
    Specimen(
        "generalized_mean", "GeM pooling with a learned power", lambda: classifier(_GeneralizedMean(), size=4)
    ),
    Specimen(
        "normalized_input",
        "mean and deviation of the pixels as buffers of the model",
        lambda: nn.Sequential(_NormalizedInput(), classifier(convolution(8, 8))),
    ),
    Specimen("product_of_matrices", "bilinear pooling: bmm of a map with itself", _BilinearPool),
)
