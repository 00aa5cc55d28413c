"""A folder of images: `train/` and `test/` (or `val/`), and in each a folder a class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from quant_explorer.core.errors import DataError, explain
from quant_explorer.core.progress import Progress
from quant_explorer.datasets.decoding import common_size, decode
from quant_explorer.datasets.source import Reading

# Those of torchvision.datasets.folder.IMG_EXTENSIONS.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = "Expected: PATH/train/<class>/*.jpg and PATH/test/<class>/*.jpg (or val/ for test/)."


class _File(NamedTuple):
    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class _Part:
    """One of the two halves: the folder, and the images of each class sorted by path."""

    folder: Path
    files: dict[str, list[_File]]


@dataclass(frozen=True)
class ImageFolder:
    """The layout of torchvision's ImageFolder, as RGB.

    Images of different sizes are brought to the most common one (at most 224 a side), and a line says
    so. `val/` is used only where there is no `test/`. Hidden files, and files
    whose suffix is none of an image, are left out.
    """

    name: str = "imagefolder"
    description: str = "imagefolder:PATH, your own images in PATH/train/<class>/ and PATH/test/<class>/"
    flip: bool = True
    takes_path: bool = True

    def find(self, root: Path, progress: Progress) -> str:
        """Return a digest of all relative paths, sizes and modification times.

        Raises DataError for missing folders, fewer than two classes, a class without images, and classes
        that differ between the two parts.
        """
        digest = hashlib.sha256()
        for part in _scan(root):
            prefix = len(str(part.folder))
            for files in part.files.values():
                lines = [f"{file.path[prefix:]}\0{file.size_bytes}\0{file.mtime_ns}\n" for file in files]
                digest.update(f"{part.folder.name}\0{''.join(lines)}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def read(self, root: Path, progress: Progress) -> Reading:
        """Decode all images; raises DataError naming the first one that is damaged."""
        train, test = _scan(root)
        by_class = [files for part in (train, test) for files in part.files.values()]
        paths = [Path(file.path) for files in by_class for file in files]
        counts = [len(files) for files in by_class]
        classes = tuple(train.files)
        width, height = size = common_size(paths)
        return Reading(
            classes=classes,
            labels=np.repeat(np.tile(np.arange(len(classes)), 2), counts),
            train_count=sum(counts[: len(classes)]),
            shape=(height, width, 3),
            chunks=decode(paths, size, progress),
        )


def _scan(root: Path) -> tuple[_Part, _Part]:
    if not root.is_dir():
        raise DataError(f"imagefolder:{root}: no such folder. {LAYOUT}")
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), root / "test")
    for folder in (root / "train", test_folder):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. {LAYOUT}")
    train, test = _scan_part(root / "train"), _scan_part(test_folder)
    _check(train, test)
    return train, test


def _scan_part(folder: Path) -> _Part:
    try:
        with os.scandir(folder) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
        return _Part(folder, {name: sorted(_images_below(folder / name)) for name in classes})
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be read ({error.strerror or explain(error)})"
        ) from error


def _images_below(folder: Path | str) -> Iterator[_File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _images_below(entry.path)
            elif entry.name.lower().endswith(SUFFIXES):
                stat = entry.stat()
                yield _File(entry.path, stat.st_size, stat.st_mtime_ns)


def _check(train: _Part, test: _Part) -> None:
    if set(train.files) != set(test.files):
        only = [
            f"only in {part.folder}: {_listed(set(part.files) - set(other.files))}"
            for part, other in ((train, test), (test, train))
            if set(part.files) - set(other.files)
        ]
        raise DataError(f"{train.folder} and {test.folder} hold different classes; {'; '.join(only)}")
    if not train.files:
        raise DataError(f"{train.folder}: no class folders, so no images. {LAYOUT}")
    if len(train.files) == 1:
        raise DataError(f"{train.folder}: only one class ({next(iter(train.files))}); at least 2 are needed")
    odd = [repr(name) for name in train.files if not name.isprintable()]
    if odd:
        raise DataError(f"{train.folder}: class folders must have printable names, not {', '.join(odd)}")
    for part in (train, test):
        empty = {name for name, files in part.files.items() if not files}
        if empty:
            raise DataError(
                f"{part.folder}: no images for {_listed(empty)}. Images end in {', '.join(SUFFIXES)}."
            )


def _listed(names: set[str], limit: int = 20) -> str:
    shown = ", ".join(sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
