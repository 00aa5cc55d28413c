"""Data sets: where images come from, decoded once, split, and prepared for a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from quant_explorer.core.dataset import Dataset, Images
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.registry import Registry
from quant_explorer.datasets.augmentation import augment
from quant_explorer.datasets.cache import Decoded, decode_once, default_cache_dir
from quant_explorer.datasets.imagefolder import ImageFolder
from quant_explorer.datasets.mnist5k import Mnist5k
from quant_explorer.datasets.preprocess import input_spec, prepare
from quant_explorer.datasets.source import Source
from quant_explorer.datasets.splits import Indices, Splits, split
from quant_explorer.datasets.torchvision_sets import CIFAR10, FASHION_MNIST, MNIST

__all__ = ["SOURCES", "augment", "input_spec", "load_dataset", "prepare"]

SOURCES: Registry[Source] = Registry(
    "data set",
    {
        "mnist5k": Mnist5k(),
        "cifar10": CIFAR10,
        "fashion-mnist": FASHION_MNIST,
        "mnist": MNIST,
        "imagefolder": ImageFolder(),
    },
)


def load_dataset(
    name: str,
    *,
    data_dir: Path,
    cache_dir: Path | None = None,
    seed: int,
    train_subset: int | None = None,
    test_subset: int | None = None,
    calibration_images: int = 256,
    progress: Progress,
) -> Dataset:
    """Return the data set called `name`, a name of SOURCES or `imagefolder:PATH`, split by `seed`.

    `data_dir` holds the files of the sources that take no path. Pixels are decoded into `cache_dir`
    (by default the user's cache folder) the first time and memory-mapped from there; that folder may
    be deleted at any time. `train_subset` counts training images before the search split is held out.

    Raises UnknownNameError, SettingsError for an option outside its range, DataError for files that are
    missing or damaged, StorageError when the cache or a download cannot be written.
    """
    source, root = _locate(name, data_dir)
    key = hashlib.sha256(source.find(root, progress).encode()).hexdigest()[:16]
    folder = (cache_dir or default_cache_dir()) / f"{source.name}-{key}"
    decoded = decode_once(folder, lambda: source.read(root, progress), progress)
    splits = split(
        decoded.labels,
        decoded.entry.train_count,
        seed=seed,
        train_subset=train_subset,
        test_subset=test_subset,
        calibration_images=calibration_images,
    )
    if len(splits.calibrate) < calibration_images:
        progress.say(f"Calibration uses all {len(splits.calibrate)} training images there are")
    return Dataset(
        name=name,
        classes=decoded.entry.classes,
        train=_images(decoded, splits.train),
        calibrate=_images(decoded, splits.calibrate),
        search=_images(decoded, splits.search),
        report=_images(decoded, splits.report),
        mean=decoded.entry.mean,
        std=decoded.entry.std,
        flip=source.flip,
        digest=_digest(decoded, splits),
    )


def _locate(name: str, data_dir: Path) -> tuple[Source, Path]:
    source_name, colon, path = name.partition(":")
    source = SOURCES[source_name]
    if source.takes_path and not path:
        raise SettingsError(f"--data {name}: the path is missing. Allowed: --data {source_name}:PATH.")
    if colon and not source.takes_path:
        raise SettingsError(f"--data {name}: {source_name} takes no path. Allowed: --data {source_name}.")
    return source, Path(path).expanduser() if source.takes_path else data_dir.expanduser()


def _images(decoded: Decoded, indices: Indices) -> Images:
    return Images(decoded.pixels, indices, decoded.labels[indices])


def _digest(decoded: Decoded, splits: Splits) -> str:
    parts = {
        "train": splits.train,
        "calibrate": splits.calibrate,
        "search": splits.search,
        "report": splits.report,
    }
    return digest_of(
        {
            "images": decoded.entry.digest,
            **{part: hashlib.sha256(ix.astype("<i8").tobytes()).hexdigest() for part, ix in parts.items()},
        }
    )
