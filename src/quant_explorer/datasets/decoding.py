"""Image files to pixels of one size: Pillow in a pool of threads, nothing damaged let through."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.errors import DataError, explain
from quant_explorer.core.progress import Progress

if TYPE_CHECKING:
    from PIL import Image

Size = tuple[int, int]

LARGEST_SIDE = 224
SAMPLED_HEADERS = 1024
_PER_JOB = 64
# Converting these to 8 bits would clip, not scale.
_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")


@dataclass(frozen=True)
class _Batch:
    pixels: NDArray[np.uint8]
    resized: int


def common_size(paths: Sequence[Path]) -> Size:
    """Return the (width, height) that most images have, each capped at 224.

    Headers of at most 1,024 images, evenly spread over `paths`, are read: reading all of them takes as
    long as decoding small images does. Raises DataError naming a file that is no image.
    """
    spread = np.linspace(0, len(paths) - 1, min(len(paths), SAMPLED_HEADERS)).round().astype(int)
    sizes = Counter(_header(paths[index]) for index in spread)
    width, height = min(sizes, key=lambda size: (-sizes[size], size))
    return min(width, LARGEST_SIDE), min(height, LARGEST_SIDE)


def decode(paths: Sequence[Path], size: Size, progress: Progress) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in order as RGB, uint8 of shape (k, height, width, 3), `size` being (width, height).

    An image of another size is scaled until its shorter side fits, bilinearly, and cropped in the
    centre. As in torchvision's ImageFolder an alpha channel is dropped and an orientation tag ignored.
    Raises DataError naming the first file that is damaged, truncated or of more than 8 bits.
    """
    resized = 0
    with progress.task("Decoding images", len(paths)) as task, _strictly():
        for batch in _in_threads(
            [paths[start : start + _PER_JOB] for start in range(0, len(paths), _PER_JOB)], size
        ):
            task.advance(len(batch.pixels))
            resized += batch.resized
            yield batch.pixels
    if resized:
        progress.say(f"{resized} of {len(paths)} images were resized and cropped to {size[0]} x {size[1]}")


def _in_threads(jobs: Sequence[Sequence[Path]], size: Size) -> Iterator[_Batch]:
    """Decode jobs in parallel, in order, with no more of them in memory than keep the threads busy."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque[Future[_Batch]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for job in jobs:
            waiting.append(pool.submit(_decode_job, job, size))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode_job(paths: Sequence[Path], size: Size) -> _Batch:
    pixels = np.empty((len(paths), size[1], size[0], 3), np.uint8)
    resized = 0
    for position, path in enumerate(paths):
        with _opened(path) as image:
            rgb = _to_rgb(image)
        if rgb.size != size:
            rgb = _fit(rgb, size)
            resized += 1
        pixels[position] = np.asarray(rgb)
    return _Batch(pixels, resized)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        raise ValueError(f"more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


def _fit(image: Image.Image, size: Size) -> Image.Image:
    from PIL import Image, ImageOps

    return ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def _header(path: Path) -> Size:
    with _opened(path) as image:
        return image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow finds wrong with it inside the block becomes a DataError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: not a readable image ({explain(error)})") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {explain(error)}") from error


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
