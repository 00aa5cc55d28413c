"""Images decoded once: one uint8 array on disk, memory-mapped by every later run."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import msgspec
import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.errors import DataError, StorageError, explain
from quant_explorer.core.progress import Progress
from quant_explorer.core.units import format_mb
from quant_explorer.datasets.kept import ENTRY, LIMIT_VARIABLE, limit_bytes, make_room, mark_used
from quant_explorer.datasets.source import Reading

PIXELS, LABELS = "pixels.npy", "labels.npy"
SCHEMA_VERSION = 1
# One grey level: a channel that never changes is not divided by zero.
STD_FLOOR = 1 / 255


@dataclass(frozen=True)
class Entry:
    """What a cache folder says of its arrays.

    `mean` and `std` are per channel, of all training images scaled to [0, 1], to six decimals; `digest`
    is the SHA-256 of classes, labels, shape and pixels. Without training images, all images count. `shared`
    is how many test images have the very pixels of a training image, `notes` the notes of the source.
    """

    schema_version: int
    classes: tuple[str, ...]
    train_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str
    shared: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """All images of a source: uint8 pixels (N, height, width, channels), mapped; int64 labels (N,)."""

    entry: Entry
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/quant-explorer`, or `~/.cache/quant-explorer` (XDG Base Directory Specification)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "quant-explorer"
    try:
        return Path.home() / ".cache" / "quant-explorer"
    except RuntimeError as error:
        raise StorageError(
            f"no place for a cache ({explain(error)}); set XDG_CACHE_HOME to a folder"
        ) from error


def decode_once(folder: Path, read: Callable[[], Reading], progress: Progress) -> Decoded:
    """Map the images in `folder`, after decoding them into it when it does not hold them yet.

    The folder appears complete or not at all; what a killed process left is removed by the next. A
    second process waits for the first. Other images beside it that were used least are removed when all
    would be larger than the cache may be. Raises StorageError when the folder cannot be written, and
    whatever `read` raises.
    """
    cached = _load(folder)
    if cached is not None:
        mark_used(folder)
        return cached
    with _storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, progress):
        cached = _load(folder)
        if cached is None:
            reading = read()
            _make_room(folder.parent, reading, progress)
            _store(folder, reading)
            cached = _load(folder)
    if cached is None:
        raise StorageError(f"{folder}: what was written cannot be read back; is the disk sound?")
    return cached


def _make_room(cache: Path, reading: Reading, progress: Progress) -> None:
    limit = limit_bytes()
    wanted = len(reading.labels) * math.prod(reading.shape)
    removed = make_room(cache, wanted, limit)
    if removed:
        freed = sum(kept.bytes for kept in removed)
        progress.say(
            f"Removed decoded images that were used least ({format_mb(freed)} MB) from {cache}, "
            f"which may hold {format_mb(limit)} MB ({LIMIT_VARIABLE})"
        )


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    lock = filelock.FileLock(folder.with_name(folder.name + ".lock"))
    with _storage(folder):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress.say(f"Waiting for another process that decodes into {folder}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: decoded images cannot be stored ({error.strerror or explain(error)}); "
            "set XDG_CACHE_HOME to a folder with space"
        ) from error


def _load(folder: Path) -> Decoded | None:
    """Return what the folder holds, or None when that is nothing, damaged or of another version."""
    try:
        entry = msgspec.json.decode((folder / ENTRY).read_bytes(), type=Entry)
        pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / LABELS, allow_pickle=False)
    except (OSError, ValueError, EOFError, msgspec.DecodeError):
        return None
    if entry.schema_version != SCHEMA_VERSION or len(pixels) != len(labels):
        return None
    return Decoded(entry, pixels, labels)


def _store(folder: Path, reading: Reading) -> None:
    part = folder.with_name(folder.name + ".part")
    try:
        # A source turns its own OSErrors into DataErrors, so one that arrives here is of the cache.
        with _storage(folder):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            entry = _write_pixels(part / PIXELS, reading)
            np.save(part / LABELS, reading.labels)
            (part / ENTRY).write_bytes(msgspec.json.encode(entry))
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_pixels(path: Path, reading: Reading) -> Entry:
    """Stream the chunks to an .npy file; statistics and digest are taken on the way."""
    total = len(reading.labels)
    about = (SCHEMA_VERSION, reading.classes, reading.train_count, total, reading.shape)
    digest = hashlib.sha256(repr(about).encode() + reading.labels.astype("<i8").tobytes())
    levels = np.zeros((reading.shape[2], 256), np.int64)
    done, shared = 0, 0
    training: set[bytes] = set()
    counted = reading.train_count or total
    # Written, not mapped: on a full disk a mapped page ends the process instead of raising an error.
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (total, *reading.shape)}
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in reading.chunks:
            content = np.ascontiguousarray(chunk)
            stream.write(content.data)
            digest.update(content.data)
            levels += _count_levels(content[: max(0, counted - done)])
            for position, image in enumerate(content, done):
                key = hashlib.sha256(image.data).digest()[:16]
                if position < reading.train_count:
                    training.add(key)
                else:
                    shared += key in training
            done += len(content)
        stream.flush()
        os.fsync(stream.fileno())
    if done != total or not np.isin(reading.labels, np.arange(len(reading.classes))).all():
        raise DataError(
            f"{done} images, {total} labels from {reading.labels.min()} to {reading.labels.max()} and "
            f"{len(reading.classes)} classes: the files of this data set do not fit together"
        )
    mean, std = _moments(levels)
    return Entry(
        SCHEMA_VERSION,
        reading.classes,
        reading.train_count,
        mean,
        std,
        digest.hexdigest(),
        shared,
        reading.notes,
    )


def _count_levels(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each grey level occurs in each channel, shape (channels, 256)."""
    from PIL import Image

    count, height, width, channels = pixels.shape
    if not count:
        return np.zeros((channels, 256), np.int64)
    # As one tall picture: Pillow counts in a third of the time that NumPy takes.
    picture = pixels.reshape((count * height, width) if channels == 1 else (count * height, width, channels))
    return np.array(Image.fromarray(picture).histogram(), np.int64).reshape(channels, 256)


def _moments(levels: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel in [0, 1], to six decimals."""
    values = np.arange(256) / 255
    shares = levels / levels.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, STD_FLOOR**2))
    return tuple(round(float(value), 6) for value in mean), tuple(round(float(value), 6) for value in std)
