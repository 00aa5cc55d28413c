"""Activation functions and gates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.testing.zoo.specimen import CLASSES, Specimen, classifier, convolution, enliven


class _SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(8, 4, 1)
        self.expand = nn.Conv2d(4, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = functional.relu(self.reduce(self.pool(x)))
        return x * functional.hardsigmoid(4 * self.expand(scale))


class _ArgmaxGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(8, 2)
        self.branches = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)])
        with torch.no_grad():
            # Far apart, so that rounding alone does not choose the other branch.
            self.score.bias.copy_(torch.tensor([3.0, -3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.score(x.mean((2, 3))).argmax(1)
        gates = functional.one_hot(chosen, 2).to(x.dtype)
        first, second = gates[:, 0, None, None, None], gates[:, 1, None, None, None]
        return functional.relu(first * self.branches[0](x) + second * self.branches[1](x))


class _WhereGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x)
        return torch.where(y > 0, y, 0.2 * x)


class _GatedLinearUnit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.glu(self.convolution(x), dim=1)


class _Softmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * functional.softmax(3 * x, dim=1)


class _GlobalSoftmax(nn.Module):
    """Probabilities for an output, as some exported classifiers have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolution(8, 8)
        self.head = nn.Linear(8 * 4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = functional.avg_pool2d(self.body(x), 8).flatten(1)
        return functional.softmax(self.head(pooled), dim=-1)


class _Normalized(nn.Module):
    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.activation = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activation(self.norm(self.convolution(x)))
        return result


def _after_norm(activation: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: classifier(_Normalized(activation))


_MODULES: tuple[tuple[str, str, Callable[[], nn.Module], str], ...] = (
    ("relu6", "ReLU6", nn.ReLU6, ""),
    ("leaky_relu", "leaky ReLU", lambda: nn.LeakyReLU(0.1), ""),
    (
        "prelu",
        "PReLU with one slope",
        nn.PReLU,
        "https://github.com/pytorch/pytorch/issues/100654",
    ),
    ("prelu_per_channel", "PReLU with a slope a channel", lambda: nn.PReLU(8), ""),
    ("hardswish", "hardswish", nn.Hardswish, ""),
    ("silu", "SiLU", nn.SiLU, ""),
    ("gelu", "GELU by the error function", nn.GELU, ""),
    ("gelu_tanh", "GELU by tanh", lambda: nn.GELU(approximate="tanh"), ""),
    ("elu", "ELU", nn.ELU, ""),
    ("mish", "Mish", nn.Mish, ""),
    ("tanh", "tanh", nn.Tanh, ""),
)

SPECIMENS = (
    *(
        Specimen(name, f"{pattern} behind convolution and batch norm", _after_norm(kind), source=source)
        for name, pattern, kind, source in _MODULES
    ),
    Specimen("glu", "gated linear unit", lambda: classifier(_GatedLinearUnit())),
    Specimen(
        "squeeze_excitation",
        "squeeze-and-excitation: a map times one number a channel",
        lambda: classifier(_SqueezeExcitation()),
    ),
    Specimen("argmax_gate", "a branch chosen by argmax and one-hot", lambda: classifier(_ArgmaxGate())),
    Specimen("where_gate", "where() by a comparison", lambda: classifier(_WhereGate())),
    Specimen("softmax_map", "softmax over the channels of a map", lambda: classifier(_Softmax())),
    Specimen(
        "softmax_output",
        "probabilities instead of logits",
        lambda: enliven(nn.Sequential(convolution(3, 8), _GlobalSoftmax())),
    ),
)
