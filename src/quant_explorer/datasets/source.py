"""Source: where the images of a data set come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.progress import Progress


@dataclass(frozen=True)
class Reading:
    """A source being read: all images of one size, training images first (or none), then test images.

    `labels` (int64, shape (N,)) index `classes`; the first `train_count` are training images. `shape`
    is (height, width, channels), channels being 1 or 3. `chunks` yields the pixels in the order of
    `labels`: uint8 arrays of shape (k, height, width, channels), any k. `notes` are what a
    reader of the report should know of the files.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    train_count: int
    shape: tuple[int, int, int]
    chunks: Iterator[NDArray[np.uint8]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What is known of files before an image is decoded.

    `image_shape` is the (channels, height, width) that images typically have, `notes` as in `Reading`.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """One way to get images. Its files live below a root: the data folder, or the path in the name."""

    @property
    def name(self) -> str:
        """What `--data` calls it."""

    @property
    def description(self) -> str:
        """One line for the list of data sets."""

    @property
    def flip(self) -> bool:
        """Whether a mirrored image is still of its class."""

    @property
    def takes_path(self) -> bool:
        """Whether it is named `NAME:PATH`, and reads PATH instead of the data folder."""

    def find(self, root: Path, progress: Progress) -> str:
        """Return a key that changes whenever the files do; cheap, for it is asked at every start.

        Fetches the files first where that is possible. Raises DataError when they are missing or are
        not a classification data set, StorageError when they cannot be written.
        """

    def read(self, root: Path, progress: Progress) -> Reading:
        """Open the files that `find` has seen; raises DataError, also while `chunks` is consumed."""


@dataclass(frozen=True)
class Listing:
    """The files of a source, none of them opened: training images first (or none), then test images.

    `labels` (int64, shape (N,)) index `classes`; the first `train_count` are training images.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    train_count: int


@runtime_checkable
class PictureSource(Source, Protocol):
    """A source of images of many sizes, which are decoded to the size that a model takes."""

    def survey(self, root: Path) -> Survey:
        """Look at names and headers of the files that `find` has seen; raises DataError."""

    def listing(self, root: Path) -> Listing:
        """List the files that `find` has seen; raises DataError."""

    def read_framed(
        self,
        root: Path,
        spec: InputSpec,
        progress: Progress,
        *,
        skip_unreadable: bool = False,
        chosen: NDArray[np.int64] | None = None,
    ) -> Reading:
        """Read as `read` does, every image framed as `spec` says; what cannot be read may be left out.

        `chosen` are indices into the listing, sorted: only these are read.
        """

    def count_copies(self, root: Path, train: NDArray[np.int64], test: NDArray[np.int64]) -> int:
        """Return how many of the files `test` are, byte by byte, one of `train`; both index the listing."""


def slices(pixels: NDArray[np.uint8], size: int = 4096) -> Iterator[NDArray[np.uint8]]:
    """Yield an array that is in memory already in chunks of `size` images."""
    for start in range(0, len(pixels), size):
        yield pixels[start : start + size]
