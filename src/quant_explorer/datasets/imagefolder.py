"""A folder of images: `train/` and `test/` (or `val/`), and in each a folder a class."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.errors import DataError, explain
from quant_explorer.core.progress import Progress
from quant_explorer.core.units import list_some, show_name
from quant_explorer.datasets.images.decoding import decode, find_readable, typical_size
from quant_explorer.datasets.source import Listing, Reading, Survey

# Those of torchvision.datasets.folder.IMG_EXTENSIONS, and another one of JPEG.
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = (
    "Expected: PATH/train/<class>/*.jpg and PATH/test/<class>/*.jpg (or val/ for test/); "
    "without train/ nothing can be trained, so weights must be given."
)
_NAMED = 5
_CLASSES_NAMED = 20
# Images that differ do so at their end too, as long as they are compressed.
_END_BYTES = 4096


class _File(NamedTuple):
    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class _Part:
    """One of the two halves: the folder, and the images of each class sorted by path.

    `left_out` counts the files that have no suffix of an image.
    """

    folder: Path
    files: dict[str, list[_File]]
    left_out: Counter[str]


@dataclass(frozen=True)
class _Tree:
    """The parts there are, the one to train with (if any) first; all have the same classes."""

    parts: tuple[_Part, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.parts[0].files)

    @property
    def paths(self) -> list[Path]:
        return [Path(file.path) for part in self.parts for files in part.files.values() for file in files]

    @property
    def labels(self) -> NDArray[np.int64]:
        counts = [len(files) for part in self.parts for files in part.files.values()]
        return np.repeat(np.tile(np.arange(len(self.classes)), len(self.parts)), counts)

    @property
    def train_count(self) -> int:
        return sum(map(len, self.parts[0].files.values())) if len(self.parts) > 1 else 0


@dataclass(frozen=True)
class ImageFolder:
    """The layout of torchvision's ImageFolder.

    `val/` is used only where there is no `test/`. Hidden files, and files without the suffix of an image,
    are left out; a line names the suffixes.
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
        for part in _scan(root).parts:
            prefix = len(str(part.folder))
            for files in part.files.values():
                lines = [f"{file.path[prefix:]}\0{file.size_bytes}\0{file.mtime_ns}\n" for file in files]
                digest.update(f"{part.folder.name}\0{''.join(lines)}".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def survey(self, root: Path) -> Survey:
        """Return the classes, the median size of the images as RGB, and which files are left out."""
        tree = _scan(root)
        width, height = typical_size(tree.paths)
        left_out = sum((part.left_out for part in tree.parts), Counter[str]())
        notes = []
        if left_out:
            named = ", ".join(f"{suffix} {count}" for suffix, count in left_out.most_common(_NAMED))
            more = f" and {len(left_out) - _NAMED} more kinds" if len(left_out) > _NAMED else ""
            notes.append(
                f"{left_out.total()} files are left out, whose suffix is not that of an image: {named}{more}"
            )
        if not tree.train_count:
            notes.append(
                f"There are no training images, only {tree.parts[0].folder.name}/: images for calibration "
                "and for decisions are set apart from it, and no figure is of them"
            )
        return Survey(tree.classes, (3, height, width), tuple(notes))

    def read(self, root: Path, progress: Progress) -> Reading:
        """Decode all images at their median size; see `read_framed`."""
        spec = InputSpec(self.survey(root).image_shape, (), ())
        return self.read_framed(root, spec, progress)

    def listing(self, root: Path) -> Listing:
        """List the images by class and path."""
        tree = _scan(root)
        return Listing(tree.classes, tree.labels, tree.train_count)

    def read_framed(
        self,
        root: Path,
        spec: InputSpec,
        progress: Progress,
        *,
        skip_unreadable: bool = False,
        chosen: NDArray[np.int64] | None = None,
    ) -> Reading:
        """Decode images as `spec` says; raises DataError naming those that cannot be read.

        With `skip_unreadable` they are found first, which takes as long again, and left out.
        """
        tree = _scan(root)
        paths, labels, train_count = tree.paths, tree.labels, tree.train_count
        if chosen is not None:
            paths, labels = [paths[index] for index in chosen], labels[chosen]
            train_count = int((chosen < train_count).sum())
        notes: tuple[str, ...] = ()
        if skip_unreadable:
            good = find_readable(paths, spec, progress)
            bad = [path.relative_to(root) for path, sound in zip(paths, good, strict=True) if not sound]
            if bad:
                named = list_some(map(show_name, bad), _NAMED)
                notes = (f"{len(bad)} of {len(paths)} images cannot be read and are left out: {named}",)
            paths = [path for path, sound in zip(paths, good, strict=True) if sound]
            train_count = int(good[:train_count].sum())
            labels = labels[good]
            if len(np.unique(labels)) < 2:
                raise DataError(f"imagefolder:{root}: no two classes have an image that can be read")
        return Reading(
            classes=tree.classes,
            labels=labels,
            train_count=train_count,
            shape=(*spec.shape[1:], spec.shape[0]),
            chunks=decode(paths, spec, progress),
            notes=notes,
        )

    def count_copies(self, root: Path, train: NDArray[np.int64], test: NDArray[np.int64]) -> int:
        """Compare files of the same size: the ends of all, and whole those whose ends are the same."""
        files = _scan(root).paths
        sizes = {files[index].stat().st_size for index in test}
        by_end: defaultdict[tuple[int, bytes], list[Path]] = defaultdict(list)
        for index in train:
            # A link to nowhere: training images may not have been read yet.
            if files[index].exists() and files[index].stat().st_size in sizes:
                by_end[_end(files[index])].append(files[index])
        return sum(
            any(
                filecmp.cmp(files[index], other, shallow=False)
                for other in by_end.get(_end(files[index]), ())
            )
            for index in test
        )


def _end(path: Path) -> tuple[int, bytes]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - _END_BYTES))
        return size, hashlib.blake2b(stream.read(), digest_size=16).digest()


def _scan(root: Path) -> _Tree:
    if not root.is_dir():
        raise DataError(f"imagefolder:{root}: no such folder. {LAYOUT}")
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if test_folder is None:
        raise DataError(f"{root / 'test'}: no such folder. {LAYOUT}")
    folders = [folder for folder in (root / "train", test_folder) if folder.is_dir()]
    tree = _Tree(tuple(map(_scan_part, folders)))
    _check(tree)
    return tree


def _scan_part(folder: Path) -> _Part:
    left_out: Counter[str] = Counter()
    try:
        with os.scandir(folder) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
        files = {name: sorted(_images_below(folder / name, left_out)) for name in classes}
    except OSError as error:
        raise DataError(
            f"{show_name(error.filename or folder)}: cannot be read ({error.strerror or explain(error)})"
        ) from error
    return _Part(folder, files, left_out)


def _images_below(folder: Path | str, left_out: Counter[str]) -> Iterator[_File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.is_symlink() and _is_around(entry.path, folder):
                    raise OSError(errno.ELOOP, "it is a link to a folder that it is in", entry.path)
                yield from _images_below(entry.path, left_out)
            elif entry.name.lower().endswith(SUFFIXES):
                # A link to nowhere is an image that cannot be read, as it turns out with all others.
                lost = entry.is_symlink() and not Path(entry.path).exists()
                stat = entry.stat(follow_symlinks=not lost)
                yield _File(entry.path, stat.st_size, stat.st_mtime_ns)
            else:
                # Escaped, for it is shown.
                left_out[ascii(Path(entry.name).suffix.lower() or "no suffix")[1:-1]] += 1


def _is_around(outer: str, inner: Path | str) -> bool:
    return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))


def _check(tree: _Tree) -> None:
    folders = [part.folder for part in tree.parts]
    names = [set(part.files) for part in tree.parts]
    if names[0] != names[-1]:
        only = [
            f"only in {folder}: {list_some(sorted(own - other), _CLASSES_NAMED)}"
            for folder, own, other in zip(folders, names, reversed(names), strict=True)
            if own - other
        ]
        raise DataError(f"{folders[0]} and {folders[1]} hold different classes; {'; '.join(only)}")
    if not tree.classes:
        raise DataError(f"{folders[0]}: no class folders, so no images. {LAYOUT}")
    if len(tree.classes) == 1:
        raise DataError(f"{folders[0]}: only one class ({tree.classes[0]}); at least 2 are needed")
    odd = [repr(name) for name in tree.classes if not name.isprintable()]
    if odd:
        raise DataError(f"{folders[0]}: class folders must have printable names, not {', '.join(odd)}")
    for part in tree.parts:
        empty = {name for name, files in part.files.items() if not files}
        if empty:
            raise DataError(
                f"{part.folder}: no images for {list_some(sorted(empty), _CLASSES_NAMED)}. "
                f"Images end in {', '.join(SUFFIXES)}."
            )
