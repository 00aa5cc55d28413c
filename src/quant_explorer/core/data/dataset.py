"""Dataset: decoded images in three disjoint splits, and how a model wants them prepared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.recipe import digest_of

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
# The shorter side, or height and width.
Resize = int | tuple[int, int]


class Undecoded(Protocol):
    """Images that are decoded when they are first asked for; that may raise DataError and StorageError."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All images, uint8 of shape (N, height, width, channels)."""

    @property
    def digest(self) -> str:
        """SHA-256 over pixels and labels."""


@dataclass(frozen=True)
class Images:
    """Some images of one memory-mapped array.

    `pixels` is uint8 of shape (N, height, width, channels) and shared by splits of one source;
    `indices` (int64, shape (n,)) says which of them belong to this split; `labels` (int64, shape
    (n,)) are their classes, in the order of `indices`. With `undecoded`, the indices are into its pixels,
    and `pixels` is empty.
    """

    pixels: NDArray[np.uint8]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    undecoded: Undecoded | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, positions: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Return the images at `positions` of this split, shape (k, height, width, channels)."""
        pixels = self.pixels if self.undecoded is None else self.undecoded.pixels
        return pixels[self.indices[positions]]


@dataclass(frozen=True)
class Dataset:
    """A classification data set.

    `train` is what weights are fitted to; `calibrate` (some of the training images) sets quantization
    ranges; `search` (training images held out from `train`) is for every decision the tool makes;
    `report` (test images) is touched only for reported figures. `calibrate`, `search` and `report`
    are disjoint. `mean` and `std` are per channel, of training images scaled to [0, 1]; empty where those
    are not decoded. `flip` says whether a mirrored image is still of its class. `digest` covers the pixels
    that are decoded, labels and splits. `notes`
    are what a reader of the report should know of the files. `framed` says that the pixels have been scaled
    and cropped for a model already. `train` is empty where the files hold none to train with.
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
    notes: tuple[str, ...] = ()
    framed: bool = False

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the decoded images."""
        _, height, width, channels = self.report.pixels.shape
        return channels, height, width

    def remaining(self, spec: InputSpec) -> InputSpec:
        """Return what of `spec` is still to be done to the decoded pixels."""
        return dataclasses.replace(spec, resize=None) if self.framed else spec


@dataclass(frozen=True)
class InputSpec:
    """What a model takes: `shape` is (channels, height, width); `mean` and `std` are per channel.

    An image is scaled with `interpolation` until its shorter side is `resize`, to the (height, width) that
    `resize` is whatever its own ratio, or until it covers height x width where that is None, and cropped in
    the centre (zeros where it is too small). Its values go from 0
    to `value_range`, then (value - mean) / std. `sources` are pairs of what was decided and by whom: the
    "option", the "model" or the "data".
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    value_range: float = 1.0
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """Names everything that changes a pixel; what is at its default is left out."""
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "sources"
            and (field.default is dataclasses.MISSING or getattr(self, field.name) != field.default)
        }
        return digest_of(given)
