"""How a model is put together and called: shared layers, dropout, memory formats, and the head."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation, StochasticDepth

from quant_explorer.testing.zoo.specimen import (
    CLASSES,
    TOKEN_WIDTH,
    Specimen,
    TokenClassifier,
    classifier,
    convolution,
    enliven,
)


class _SharedConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = self.relu(self.shared(x))
        result: torch.Tensor = x + self.relu(self.shared(once))
        return result


class _SharedNorm(nn.Module):
    """One convolution whose two calls have batch norms of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.first, self.second = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = functional.relu(self.first(self.shared(x)))
        return functional.relu(self.second(self.shared(once)))


class _SharedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = convolution(3, 8)
        self.shared = nn.Linear(32, 32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = functional.avg_pool2d(self.body(images), 8).flatten(1)
        logits: torch.Tensor = self.head(functional.relu(self.shared(functional.relu(self.shared(flat)))))
        return logits


class _TiedWeights(nn.Module):
    """Two layers with one weight: an encoder and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrow = functional.relu(self.narrow(x))
        return x + functional.conv2d(narrow, self.narrow.weight.transpose(0, 1))


class _FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = convolution(3, 8)
        self.hidden = nn.Linear(32, 32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = functional.avg_pool2d(self.body(images), 8).flatten(1)
        dropped = functional.dropout(functional.relu(self.hidden(flat)), 0.5, training=self.training)
        logits: torch.Tensor = self.head(dropped)
        return logits


class _StochasticDepth(nn.Module):
    """Torchvision's, which is a function that torch.fx does not look into."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = Conv2dNormActivation(8, 8)
        self.depth = StochasticDepth(0.2, "row")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.depth(self.branch(x)) + x
        return result


class _AuxiliaryHead(nn.Module):
    """A second head that only training uses, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolution(3, 8)
        self.auxiliary = nn.Linear(32, CLASSES)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = functional.avg_pool2d(self.body(images), 8).flatten(1)
        logits: torch.Tensor = self.head(flat)
        if self.training:
            logits = logits + self.auxiliary(flat)
        return logits


class _ConvolutionHead(nn.Module):
    """A pointwise convolution for a head, squeezed to logits (SqueezeNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolution(3, 8)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(functional.adaptive_avg_pool2d(self.body(images), 1))
        return logits.squeeze(3).squeeze(2)


class _NotOfSize(nn.Module):
    """A check of the input's size, as timm's patch embeddings make it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classifier(convolution(8, 8))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch._assert(images.shape[2] == 16, "images must be 16 pixels high")
        logits: torch.Tensor = self.body(images)
        return logits


def _channels_last() -> nn.Module:
    return classifier(convolution(8, 8)).to(memory_format=torch.channels_last)


def _multilayer() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, CLASSES))


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(TOKEN_WIDTH, TOKEN_WIDTH, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.layer(x)[0]
        return states


class _BothDirections(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(TOKEN_WIDTH, TOKEN_WIDTH // 2, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.layer(x)[0]
        return states


class _BilinearHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(3, 8), nn.AvgPool2d(8), nn.Flatten())
        self.head = nn.Bilinear(32, 32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x)
        logits: torch.Tensor = self.head(features, features)
        return logits


class _CosineClassifier(nn.Module):
    """Logits are cosines between features and the columns of a transposed weight, as in CLIP."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(3, 8), nn.AvgPool2d(8), nn.Flatten())
        self.weight = nn.Parameter(torch.randn(CLASSES, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x)
        weight = self.weight / self.weight.norm(dim=-1, keepdim=True)
        logits: torch.Tensor = 3.0 * (features / features.norm(dim=-1, keepdim=True)) @ weight.t()
        return logits


class _Gained(nn.Conv2d):
    """A subclass of a layer that does more, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__(8, 8, 3, bias=False)
        self.gain = nn.Parameter(0.5 + torch.rand(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(super().forward(functional.pad(x, (1, 1, 1, 1))) * self.gain)


SPECIMENS = (
    Specimen(
        "subclassed_layer", "a subclass of nn.Conv2d that pads and scales", lambda: classifier(_Gained())
    ),
    Specimen("lstm", "an LSTM over tokens", lambda: TokenClassifier(_Recurrent())),
    Specimen("gru_both_directions", "a GRU in both directions", lambda: TokenClassifier(_BothDirections())),
    Specimen("bilinear_head", "nn.Bilinear as the head", lambda: enliven(_BilinearHead())),
    Specimen(
        "cosine_classifier", "cosines between features and weights", lambda: enliven(_CosineClassifier())
    ),
    Specimen(
        "shared_convolution", "a convolution that is called twice", lambda: classifier(_SharedConvolution())
    ),
    Specimen(
        "shared_norms",
        "a convolution called twice, each call with its batch norm",
        lambda: classifier(_SharedNorm()),
    ),
    Specimen("shared_linear", "a linear layer that is called twice", lambda: enliven(_SharedLinear())),
    Specimen(
        "tied_weights", "a layer whose weight another one transposes", lambda: classifier(_TiedWeights())
    ),
    Specimen(
        "dropout_functional", "F.dropout(x, p, training=self.training)", lambda: enliven(_FunctionalDropout())
    ),
    Specimen("multilayer", "linear layers alone, with nn.Dropout", _multilayer),
    Specimen(
        "stochastic_depth", "torchvision's StochasticDepth (fx.wrap)", lambda: classifier(_StochasticDepth())
    ),
    Specimen("auxiliary_head", "a head that only training uses", _AuxiliaryHead),
    Specimen("convolution_head", "a pointwise convolution as head, squeezed", _ConvolutionHead),
    Specimen("size_check", "torch._assert on the size of the input", _NotOfSize),
    Specimen("channels_last", "a model in channels_last memory format", _channels_last),
    Specimen(
        "thousand_classes",
        "1,000 classes",
        lambda: nn.Sequential(convolution(3, 8), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(128, 1000)),
    ),
)
