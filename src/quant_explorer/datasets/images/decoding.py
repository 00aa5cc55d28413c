"""Image files to pixels of one size: Pillow in a pool of threads, nothing damaged let through."""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.errors import DataError, explain
from quant_explorer.core.progress import Progress
from quant_explorer.core.units import show_name
from quant_explorer.datasets.images.framing import frame

if TYPE_CHECKING:
    from PIL import Image

Size = tuple[int, int]

SAMPLED_HEADERS = 1024
# Of width times height: 512 MB as RGB. A file of a few kilobytes can claim more.
LARGEST_PIXELS = 178_956_970
_LISTED = 20
# Of what a job decodes, so that the jobs under way take little memory on many cores.
_JOB_BYTES = 4 << 20
# Converting these to 8 bits would clip, not scale.
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class _Batch:
    """`good` (bool) says which of a job's images are in `pixels`; `faults` say what the others are."""

    pixels: NDArray[np.uint8]
    good: NDArray[np.bool_]
    faults: tuple[str, ...]
    turned: int


def typical_size(paths: Sequence[Path]) -> Size:
    """Return the median width and the median height of the images.

    Headers of at most 1,024 images, evenly spread over `paths`, are read: reading all of them takes as
    long as decoding small images does. One that cannot be read has no say; raises DataError when all are.
    """
    spread = np.linspace(0, len(paths) - 1, min(len(paths), SAMPLED_HEADERS)).round().astype(int)
    sizes: list[Size] = []
    faults: list[str] = []
    for index in spread:
        try:
            with _opened(paths[index]) as image:
                sizes.append(image.size)
        except DataError as error:
            faults.append(explain(error))
    if not sizes:
        raise unreadable(faults)
    # The lower of the two in the middle, for a mean of them may be no size that any image has.
    width, height = (sorted(sides)[(len(sides) - 1) // 2] for sides in zip(*sizes, strict=True))
    return width, height


def unreadable(faults: Sequence[str]) -> DataError:
    """Return the error for images that cannot be read, all of them at once."""
    more = f"\nand {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
    text = "\n".join(faults[:_LISTED])
    advice = "Mend or remove them, or leave them out with --skip-unreadable."
    return DataError(f"{text}{more}\n{advice}")


def decode(paths: Sequence[Path], spec: InputSpec, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in order, uint8 of shape (k, height, width, channels), framed as `spec` says.

    As with the reader of torchvision's ImageFolder an alpha channel is dropped and an EXIF orientation
    not applied, which is reported. Raises DataError naming every file that is damaged, truncated, too large
    or of more than 8 bits.
    """
    faults: list[str] = []
    turned = 0
    with progress.task("Decoding images", len(paths)) as task, _strictly():
        for batch in _in_threads(paths, spec):
            task.advance(len(batch.good))
            faults += batch.faults
            turned += batch.turned
            if not faults:
                yield batch.pixels
    if faults:
        raise unreadable(faults)
    if turned:
        progress.say(
            f"{turned} of {len(paths)} images have an EXIF orientation; it is not applied, "
            "as torchvision's reader does not"
        )


def find_readable(paths: Sequence[Path], spec: InputSpec, progress: Progress) -> NDArray[np.bool_]:
    """Say which images can be decoded; each is decoded for it."""
    good: list[NDArray[np.bool_]] = []
    with progress.task("Checking images", len(paths)) as task, _strictly():
        for batch in _in_threads(paths, spec):
            task.advance(len(batch.good))
            good.append(batch.good)
    return np.concatenate(good)


def decoding_threads() -> int:
    """Return how many images are decoded at a time: Pillow lets other threads run while it decodes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_threads(paths: Sequence[Path], spec: InputSpec) -> Iterator[_Batch]:
    """Decode in parallel, in order, with no more in memory than keeps the threads busy."""
    threads = decoding_threads()
    size = max(1, min(64, _JOB_BYTES // math.prod(spec.shape)))
    waiting: deque[Future[_Batch]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for start in range(0, len(paths), size):
            waiting.append(pool.submit(_decode_job, paths[start : start + size], spec))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode_job(paths: Sequence[Path], spec: InputSpec) -> _Batch:
    channels, height, width = spec.shape
    pixels = np.zeros((len(paths), height, width, channels), np.uint8)
    good = np.ones(len(paths), np.bool_)
    faults: list[str] = []
    turned = 0
    for position, path in enumerate(paths):
        try:
            with _opened(path) as image:
                turned += image.getexif().get(_ORIENTATION, 1) != 1
                framed = frame(_convert(image, channels), spec)
        except DataError as error:
            good[position] = False
            faults.append(explain(error))
        else:
            pixels[position] = np.asarray(framed).reshape(height, width, channels)
    return _Batch(pixels, good, tuple(faults), turned)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode in _DEEP_MODES:
        raise ValueError(f"more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
    if image.mode == mode:
        image.load()
        return image
    # Colours of a palette, or an alpha channel, are dropped as for three channels.
    return image.convert(mode) if mode == "RGB" else image.convert("RGB").convert(mode)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow finds wrong with it inside the block becomes a DataError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels; allowed: {LARGEST_PIXELS:,} in an image"
                )
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{show_name(path)}: not a readable image ({explain(error)})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{show_name(path)}: {explain(error)}") from error


@contextmanager
def _strictly() -> Iterator[None]:
    """Decode with Pillow's default of refusing truncated files, whatever the host program has set."""
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
