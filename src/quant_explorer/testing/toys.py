"""A toy model and toy data that is learnable, small enough for a test to build, train and quantize."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch, Teacher
from quant_explorer.core.data.dataset import Dataset, Images
from quant_explorer.core.recipe import digest_of

if TYPE_CHECKING:
    from torch import nn

TOY_SHAPE: Final = (3, 16, 16)
TOY_CLASSES: Final = ("amber", "blue", "coral", "dusk")
# Output elements times weights of a filter, by hand: they check what runtimes report.
TOY_LAYER_MACS: Final = {
    "0": 8 * (16 * 16) * (3 * 3 * 3),
    "4": 16 * (8 * 8) * (8 * 3 * 3),
    "9": 16 * 4,
}
TOY_LINEAR_MACS: Final = TOY_LAYER_MACS["9"]
TOY_CONVOLUTION_MACS: Final = sum(TOY_LAYER_MACS.values()) - TOY_LINEAR_MACS
_COARSE: Final = 4
_NOISE: Final = 30.0


def toy_model(*, seed: int = 0) -> nn.Sequential:
    """Return a network in eval mode for (n, 3, 16, 16), with 4 classes and batch norms that matter.

    Two of [3x3 conv without bias, batch norm, ReLU] with a 2x2 max pool between, global average pool,
    linear. The caller's random state is left as it was.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, len(TOY_CLASSES)),
        )
        settle_batch_norms(model)
    return model.eval()


def toy_linear_model(*, shape: tuple[int, int, int] = (3, 4, 4), seed: int = 0) -> nn.Sequential:
    """Return Flatten and Linear for (n, *shape): one layer, so that quantization error has a formula."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), len(TOY_CLASSES))).eval()


def settle_batch_norms(model: nn.Module) -> None:
    """Give every batch norm statistics and weights, all different, as training would have left them."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, _BatchNorm):
                continue
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0.0, 0.1)


def toy_batches(
    shape: tuple[int, int, int] = TOY_SHAPE, *, count: int = 4, size: int = 8, seed: int = 0
) -> tuple[Batch, ...]:
    """Return `count` batches (size, *shape) of standard normal noise, to calibrate or compare with."""
    rng = np.random.default_rng([seed, 7])
    return tuple(rng.standard_normal((size, *shape), dtype=np.float32) for _ in range(count))


def toy_dataset(*, train: int = 256, search: int = 32, report: int = 64, seed: int = 0) -> Dataset:
    """Return a data set of 4 balanced classes of 16 x 16 RGB images, in memory.

    An image is the coarse pattern of its class plus noise, so a small network learns it in one epoch.
    The split sizes are multiples of 4; `calibrate` is the first 32 training images.
    """
    rng = np.random.default_rng([seed, 11])
    channels, height, width = TOY_SHAPE
    classes = len(TOY_CLASSES)
    coarse = rng.uniform(40, 215, (classes, height // _COARSE, width // _COARSE, channels))
    patterns = coarse.repeat(_COARSE, axis=1).repeat(_COARSE, axis=2)
    labels = np.arange(train + search + report, dtype=np.int64) % classes
    noisy = patterns[labels] + rng.normal(0.0, _NOISE, (len(labels), height, width, channels))
    pixels = noisy.clip(0, 255).astype(np.uint8)

    def part(start: int, stop: int) -> Images:
        indices = np.arange(start, stop, dtype=np.int64)
        return Images(pixels, indices, labels[indices])

    scaled: NDArray[np.float64] = pixels[:train] / 255
    return Dataset(
        name="toy",
        classes=TOY_CLASSES,
        train=part(0, train),
        calibrate=part(0, min(32, train)),
        search=part(train, train + search),
        report=part(train + search, len(labels)),
        mean=tuple(scaled.mean((0, 1, 2)).tolist()),
        std=tuple(scaled.std((0, 1, 2)).tolist()),
        flip=False,
        digest=digest_of({"toy": [train, search, report, seed]}),
    )


@dataclass(frozen=True)
class FineTuneCall:
    """What a technique asked the training loop for. `model` is the very object that was trained."""

    model: nn.Module
    epochs: int
    learning_rate: float
    label: str
    teacher: Teacher | None = None


@dataclass
class ToyTraining:
    """A `FineTune` of a few steps of SGD on fixed batches towards fixed labels, which keeps its calls.

    A teacher is kept with the call and otherwise ignored.
    """

    batches: Sequence[Batch] = field(default_factory=toy_batches)
    classes: int = len(TOY_CLASSES)
    calls: list[FineTuneCall] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        *,
        epochs: int,
        learning_rate: float,
        label: str,
        teacher: Teacher | None = None,
    ) -> None:
        """Train `model` in place; it is left in eval mode."""
        import torch

        self.calls.append(FineTuneCall(model, epochs, learning_rate, label, teacher))
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), learning_rate)
        for batch in self.batches:
            optimizer.zero_grad()
            logits = model(torch.from_numpy(batch))
            labels = torch.arange(len(batch)) % self.classes
            torch.nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
        model.eval()
