"""Data sets: where images come from, decoded once, split, and prepared for a model."""

from __future__ import annotations

from pathlib import Path

from quant_explorer.core.data.dataset import Dataset, InputSpec
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.progress import Progress
from quant_explorer.core.registry import Registry
from quant_explorer.datasets.class_names import read_classes, warn_of_numbers
from quant_explorer.datasets.found import DataOptions, FoundData, decode_found
from quant_explorer.datasets.imagefolder import ImageFolder
from quant_explorer.datasets.images.augmentation import augment
from quant_explorer.datasets.images.preprocess import data_preprocessing, input_spec, prepare
from quant_explorer.datasets.mnist5k import Mnist5k
from quant_explorer.datasets.source import PictureSource, Source
from quant_explorer.datasets.torchvision_sets import CIFAR10, FASHION_MNIST, MNIST

__all__ = [
    "SOURCES",
    "DataOptions",
    "FoundData",
    "augment",
    "data_preprocessing",
    "find_dataset",
    "input_spec",
    "load_dataset",
    "prepare",
    "read_classes",
]

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


def find_dataset(name: str, options: DataOptions, progress: Progress) -> FoundData:
    """Return the data set called `name`, a name of SOURCES or `imagefolder:PATH`.

    Raises UnknownNameError, SettingsError for an option outside its range, DataError for files that are
    missing, StorageError when a download cannot be written.
    """
    source, root = _locate(name, options.data_dir)
    key = source.find(root, progress)
    if isinstance(source, PictureSource):
        survey = source.survey(root)
        warning = warn_of_numbers(survey.classes)
        is_news = warning and options.class_order == "name" and not options.outputs
        notes = (*survey.notes, warning) if warning and is_news else survey.notes
        classes, shape = survey.classes, survey.image_shape
    else:
        decoded = decode_found(source, root, key, InputSpec((1, 1, 1), (), ()), options, progress)
        _, height, width, channels = decoded.pixels.shape
        classes, shape, notes = decoded.entry.classes, (channels, height, width), ()
    return FoundData(name, classes, shape, notes, source, root, key, options, progress)


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
    """Return a data set with images of their own (typical) size; see `find_dataset` and `FoundData.load`."""
    options = DataOptions(data_dir, cache_dir, seed, train_subset, test_subset, calibration_images)
    return find_dataset(name, options, progress).load()


def _locate(name: str, data_dir: Path) -> tuple[Source, Path]:
    source_name, colon, path = name.partition(":")
    source = SOURCES[source_name]
    if source.takes_path and not path:
        raise SettingsError(f"--data {name}: the path is missing. Allowed: --data {source_name}:PATH.")
    if colon and not source.takes_path:
        raise SettingsError(f"--data {name}: {source_name} takes no path. Allowed: --data {source_name}.")
    return source, Path(path).expanduser() if source.takes_path else data_dir.expanduser()
