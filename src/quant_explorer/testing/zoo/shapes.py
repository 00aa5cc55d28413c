"""What moves values: pools, resizing, concatenation, splits, shuffles, and sizes read from tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.testing.zoo.specimen import CLASSES, Specimen, classifier, convolution


class _Function(nn.Module):
    """A 3x3 convolution and a function of its output and its input."""

    def __init__(
        self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], outputs: int = 8
    ) -> None:
        super().__init__()
        self.convolution = convolution(8, outputs)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.convolution(x), x)


class _Split(nn.Module):
    def __init__(self, *, chunks: bool) -> None:
        super().__init__()
        self.chunks = chunks
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=1) if self.chunks else torch.split(x, [4, 4], dim=1)
        return torch.cat([first, functional.relu(self.convolution(second))], 1)


class _ChannelShuffle(nn.Module):
    """ShuffleNetV2's block: half of the channels pass by, then the two halves are interleaved."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = convolution(4, 4)
        self.behind = convolution(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=1)
        joined = torch.cat([first, self.branch(second)], 1)
        n, channels, height, width = joined.shape
        grouped = joined.view(n, 2, channels // 2, height, width)
        shuffled = grouped.transpose(1, 2).contiguous().view(n, channels, height, width)
        result: torch.Tensor = self.behind(shuffled)
        return result


class _SizedView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = convolution(3, 8)
        self.head = nn.Linear(8 * 16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = functional.max_pool2d(self.body(images), 4)
        logits: torch.Tensor = self.head(pooled.view(pooled.size(0), -1))
        return logits


class _NonSquare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(3, 8), nn.MaxPool2d(2), convolution(8, 8))
        self.head = nn.Linear(8 * 2 * 5, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(functional.avg_pool2d(self.body(images), 2).flatten(1))
        return logits


def _scaled_by_size(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    width: int = x.shape[-1]
    scaled: torch.Tensor = x * width**-0.5 + x.size(1) / 8.0
    return scaled


def _mean_over_size(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    channels, height, width = x.shape[1:]
    total = x.view(-1, channels, height * width).sum(2)
    return x - (total / float(height * width)).view(-1, channels, 1, 1)


def _interpolated_to(x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    small = functional.max_pool2d(x, 2)
    return before + functional.interpolate(small, size=before.shape[-2:], mode="nearest")


def _focus(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def _stacked(x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    first, second = torch.stack([x, before], 1).unbind(1)
    return first - 0.5 * second


def _upsampled(mode: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    aligned = None if mode == "nearest" else False
    return lambda x, _: functional.interpolate(x, scale_factor=2, mode=mode, align_corners=aligned)


def _function(
    name: str,
    pattern: str,
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    outputs: int = 8,
    channels: int = 8,
    size: int = 16,
    source: str = "",
) -> Specimen:
    return Specimen(
        name,
        pattern,
        lambda: classifier(_Function(function, outputs), channels=channels, size=size),
        source=source,
    )


class _Coordinates(nn.Module):
    """A map of columns beside the others, made in forward() for each image (CoordConv)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(9, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = torch.linspace(-1, 1, x.shape[3]).expand(x.shape[0], 1, x.shape[2], -1)
        y = functional.relu(self.convolution(torch.cat([x, columns], 1)))
        return functional.relu(self.second(y))


SPECIMENS = (
    Specimen(
        "coordinates",
        "a tensor made in forward(), expanded to the batch",
        lambda: classifier(_Coordinates(), channels=16),
    ),
    _function("concatenation", "cat of two maps", lambda x, y: torch.cat([x, y], 1), channels=16),
    _function(
        "scaled_concatenation",
        "cat of maps of other scales: the first is 8 times as large and never negative",
        lambda x, y: torch.cat([8 * x, 0.05 * y, y - 1], 1),
        channels=24,
    ),
    Specimen("split", "split by sizes", lambda: classifier(_Split(chunks=False))),
    Specimen("chunk", "chunk in two", lambda: classifier(_Split(chunks=True))),
    Specimen(
        "channel_shuffle",
        "ShuffleNetV2's block: chunk, cat, view, transpose, view",
        lambda: classifier(_ChannelShuffle()),
        source="https://github.com/VainF/Torch-Pruning/issues/14",
    ),
    Specimen(
        "channel_shuffle_module",
        "nn.ChannelShuffle between grouped convolutions",
        lambda: classifier(
            nn.Sequential(convolution(8, 8, groups=2), nn.ChannelShuffle(2), convolution(8, 8, groups=2))
        ),
    ),
    _function("stack", "stack and unbind", _stacked),
    _function(
        "strided_slices", "slices of stride 2 concatenated, as in YOLO's Focus", _focus, channels=32, size=8
    ),
    Specimen(
        "pixel_shuffle",
        "PixelShuffle behind a convolution",
        lambda: classifier(nn.Sequential(convolution(8, 32), nn.PixelShuffle(2)), size=32),
        source="https://github.com/VainF/Torch-Pruning/issues/420",
    ),
    Specimen(
        "pixel_unshuffle",
        "PixelUnshuffle before a convolution",
        lambda: classifier(nn.Sequential(nn.PixelUnshuffle(2), convolution(32, 8)), size=8),
    ),
    _function("interpolate_nearest", "nearest neighbours by a factor of 2", _upsampled("nearest"), size=32),
    _function("interpolate_bilinear", "bilinear by a factor of 2", _upsampled("bilinear"), size=32),
    _function("interpolate_bicubic", "bicubic by a factor of 2", _upsampled("bicubic"), size=32),
    _function("interpolate_to_size", "nearest neighbours to the size of another map", _interpolated_to),
    Specimen("view_by_size", "view(x.size(0), -1) before the head", _SizedView),
    _function("scalars_from_shape", "numbers computed from x.shape and multiplied", _scaled_by_size),
    _function("mean_by_shape", "a sum divided by float(height * width)", _mean_over_size),
    _function("roll", "torch.roll of a map", lambda x, y: x + torch.roll(y, (1, 1), (2, 3))),
    _function(
        "global_maximum", "amax over pixels, added to the map", lambda x, y: x + y.amax((2, 3), keepdim=True)
    ),
    Specimen(
        "average_pool_list",
        "AvgPool2d([3]): its size as a list of one",
        lambda: classifier(nn.Sequential(convolution(8, 8), nn.AvgPool2d([3])), size=5),  # type: ignore[arg-type]
    ),
    Specimen(
        "average_pool_padded",
        "average pool that does not count its padding",
        lambda: classifier(nn.Sequential(convolution(8, 8), nn.AvgPool2d(3, 1, 1, count_include_pad=False))),
    ),
    Specimen(
        "max_pool_ceil",
        "max pool whose last window is cut off",
        lambda: classifier(nn.Sequential(convolution(8, 8), nn.MaxPool2d(3, 2, ceil_mode=True)), size=8),
    ),
    Specimen(
        "adaptive_pool",
        "AdaptiveAvgPool2d(7) of 16x16: windows of different sizes",
        lambda: classifier(nn.Sequential(convolution(8, 8), nn.AdaptiveAvgPool2d(7)), size=7),
    ),
    Specimen(
        "adaptive_pool_same",
        "AdaptiveAvgPool2d(7) of 7x7, as in VGG at its usual size",
        lambda: classifier(
            nn.Sequential(nn.AvgPool2d(4, 2), convolution(8, 8), nn.AdaptiveAvgPool2d(7)), size=7
        ),
    ),
    Specimen("non_square", "images of 8x20 pixels", _NonSquare, shape=(3, 8, 20)),
)
