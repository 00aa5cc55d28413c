"""Convolutions of every kind that the families of torchvision and timm have."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from quant_explorer.testing.zoo.specimen import Specimen, classifier, convolution

SMALL = 0.003


class _Separable(nn.Sequential):
    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            activation(),
            nn.Conv2d(8, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )


class _InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.project(self.depthwise(self.expand(x)))
        return result


class _ReflectPad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.convolution(functional.pad(x, (1, 1, 1, 1), mode="reflect")))


class _AsymmetricPad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(8, 8, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.convolution(functional.pad(x, (0, 1, 0, 1))))


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.2 * torch.randn(8, 8, 3, 3))
        self.bias = nn.Parameter(0.1 * torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(functional.conv2d(x, self.weight, self.bias, padding=1))


class _StandardizedWeights(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.weight.flatten(1)
        centered = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True) + 1e-4).sqrt()
        weight = centered.view_as(self.weight) * 0.1
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class _Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.convolution(x.unsqueeze(1))).flatten(1, 2)


class _Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = functional.relu(self.convolution(x.flatten(2)))
        return rows.view(-1, 8, 16, 16)


class _PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.convolution = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.convolution(functional.relu(self.norm(x)))], 1)


class _MixedWeights(nn.Module):
    """A convolution whose weights are mixed, image by image, from three sets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.17 * torch.randn(3, 8, 8, 3, 3))
        self.shares = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[0]
        shares = torch.sigmoid(self.shares(x.mean((2, 3))))
        weight = torch.einsum("nk,koihw->noihw", shares, self.weight).reshape(count * 8, 8, 3, 3)
        y = functional.conv2d(x.reshape(1, count * 8, 16, 16), weight, padding=1, groups=count)
        return functional.relu(y.view(count, 8, 16, 16))


class _GeneratedFilters(nn.Module):
    """A depthwise convolution whose filters a linear layer makes for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Linear(8, 72)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[0]
        weight = self.filters(x.mean((2, 3))).reshape(count * 8, 1, 3, 3)
        y = functional.conv2d(x.reshape(1, count * 8, 16, 16), weight, padding=1, groups=count * 8)
        return functional.relu(y.reshape(count, 8, 16, 16) + x)


def _small_weights() -> nn.Module:
    layer = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    model = classifier(nn.Sequential(layer, _Scale(1 / SMALL), nn.ReLU()))
    with torch.no_grad():
        layer.weight.mul_(SMALL)
    return model


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1, 8, 1, 1), factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def _uneven_channels() -> nn.Module:
    layer = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    model = classifier(nn.Sequential(layer, nn.BatchNorm2d(8), nn.ReLU()))
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-2, 0, 8).view(8, 1, 1, 1))
        layer.weight[3] = 0.0
    return model


def _rectified(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.ReLU())


SPECIMENS = (
    Specimen("convolution", "3x3 convolution, batch norm, ReLU", lambda: classifier(convolution(8, 8))),
    Specimen("depthwise", "depthwise and pointwise convolution", lambda: classifier(_Separable(nn.ReLU))),
    Specimen("grouped", "convolution of 2 groups", lambda: classifier(convolution(8, 8, groups=2))),
    Specimen(
        "dilated",
        "dilated convolution",
        lambda: classifier(_rectified(nn.Conv2d(8, 8, 3, padding=2, dilation=2))),
    ),
    Specimen(
        "asymmetric_kernel",
        "1x7 and 7x1 convolutions",
        lambda: classifier(
            _rectified(nn.Conv2d(8, 8, (1, 7), padding=(0, 3)), nn.Conv2d(8, 8, (7, 1), padding=(3, 0)))
        ),
    ),
    Specimen(
        "transposed",
        "transposed convolution of stride 2",
        lambda: classifier(_rectified(nn.ConvTranspose2d(8, 8, 2, stride=2)), size=32),
        source="https://github.com/pytorch/pytorch/issues/54816",
    ),
    Specimen(
        "transposed_grouped",
        "transposed convolution of 2 groups, output padding",
        lambda: classifier(
            _rectified(nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=2)), size=32
        ),
        source="https://github.com/microsoft/onnxruntime/issues/19694",
    ),
    Specimen(
        "padding_same",
        'convolution with padding="same"',
        lambda: classifier(_rectified(nn.Conv2d(8, 8, 3, padding="same"))),
    ),
    Specimen(
        "padding_same_even",
        'padding="same" of an even kernel: one side gets more',
        lambda: classifier(_rectified(nn.Conv2d(8, 8, 4, padding="same"))),
    ),
    Specimen(
        "padding_mode_reflect",
        'convolution with padding_mode="reflect"',
        lambda: classifier(_rectified(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"))),
    ),
    Specimen(
        "pad_reflect", "functional reflect padding before a convolution", lambda: classifier(_ReflectPad())
    ),
    Specimen(
        "pad_asymmetric",
        "zeros on two sides before a strided convolution, as TensorFlow pads",
        lambda: classifier(_AsymmetricPad(), size=8),
    ),
    Specimen(
        "one_input_channel",
        "images of one channel",
        lambda: classifier(convolution(8, 8), inputs=1),
        shape=(1, 16, 16),
    ),
    Specimen(
        "four_input_channels",
        "images of four channels",
        lambda: classifier(convolution(8, 8), inputs=4),
        shape=(4, 16, 16),
    ),
    Specimen("convolution_1d", "1-d convolution over flattened pixels", lambda: classifier(_Rows())),
    Specimen(
        "convolution_3d",
        "3-d convolution over channels and pixels",
        lambda: classifier(_Volume(), channels=16),
    ),
    Specimen(
        "functional_convolution",
        "functional convolution with parameters of the model",
        lambda: classifier(_Functional()),
    ),
    Specimen(
        "standardized_weights",
        "convolution whose weights are standardized in each call",
        lambda: classifier(_rectified(_StandardizedWeights(8, 8, 3, padding=1))),
    ),
    Specimen(
        "weight_norm",
        "convolution with weight norm as a parametrization",
        lambda: classifier(_rectified(parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)))),
    ),
    Specimen(
        "mixed_weights",
        "convolution with weights mixed by a sigmoid for each image, as CondConv",
        lambda: classifier(_MixedWeights()),
    ),
    Specimen(
        "generated_filters",
        "depthwise convolution with filters computed for each image",
        lambda: classifier(_GeneratedFilters()),
    ),
    Specimen("inverted_residual", "MobileNetV2's block with ReLU6", lambda: classifier(_InvertedResidual())),
    Specimen(
        "pre_activation",
        "batch norm and ReLU before the convolution, concatenated as in DenseNet",
        lambda: classifier(_PreActivation(), channels=16),
    ),
    Specimen("small_weights", "weights of 0.3 % of the usual, scaled up behind", _small_weights),
    Specimen(
        "uneven_channels",
        "filters of sizes from 0.01 to 1, and one of zeros, before a batch norm",
        _uneven_channels,
    ),
)
