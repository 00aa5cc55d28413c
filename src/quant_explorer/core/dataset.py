"""Dataset: decoded images in three disjoint splits, and how a model wants them prepared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Images:
    """Some images of one memory-mapped array.

    `pixels` is uint8 of shape (N, height, width, channels) and shared by all splits of one source;
    `indices` (int64, shape (n,)) says which of them belong to this split; `labels` (int64, shape
    (n,)) are their classes, in the order of `indices`.
    """

    pixels: NDArray[np.uint8]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, positions: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Return the images at `positions` of this split, shape (k, height, width, channels)."""
        return self.pixels[self.indices[positions]]


@dataclass(frozen=True)
class Dataset:
    """A classification data set.

    `train` is what weights are fitted to; `calibrate` (some of the training images) sets quantization
    ranges; `search` (training images held out from `train`) is for every decision the tool makes;
    `report` (test images) is touched only for reported figures. `calibrate`, `search` and `report`
    are disjoint. `mean` and `std` are per channel, of training images scaled to [0, 1]. `flip` says
    whether a mirrored image is still of its class. `digest` covers the pixels, labels and splits.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    calibrate: Images
    search: Images
    report: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    digest: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the decoded images."""
        _, height, width, channels = self.train.pixels.shape
        return channels, height, width


@dataclass(frozen=True)
class InputSpec:
    """What a model takes: `shape` is (channels, height, width); `mean` and `std` are per channel."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
