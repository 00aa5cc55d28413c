"""Data sets: where images come from, decoded once, split, and prepared for a model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from quant_explorer.core.data.dataset import Dataset, Images, InputSpec
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.registry import Registry
from quant_explorer.core.settings.inputs import ClassOrder
from quant_explorer.datasets.augmentation import augment
from quant_explorer.datasets.cache import Decoded, decode_once, default_cache_dir
from quant_explorer.datasets.class_names import (
    map_classes,
    order_by_number,
    read_classes,
    warn_of_numbers,
)
from quant_explorer.datasets.imagefolder import ImageFolder
from quant_explorer.datasets.mnist5k import Mnist5k
from quant_explorer.datasets.preprocess import data_preprocessing, input_spec, prepare
from quant_explorer.datasets.source import PictureSource, Reading, Source
from quant_explorer.datasets.splits import Indices, Splits, split
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


@dataclass(frozen=True)
class DataOptions:
    """How a data set is read and divided.

    `outputs` are the names of all outputs of the model, in order; empty where the classes of the data set
    are the outputs, in its own order or as numbers. `train_subset` counts training images before the
    search split is held out. `cache_dir` is by default the user's cache folder. A `flip` of None is what
    the data set allows.
    """

    data_dir: Path
    cache_dir: Path | None = None
    seed: int = 0
    train_subset: int | None = None
    test_subset: int | None = None
    calibration_images: int = 256
    class_order: ClassOrder = "name"
    outputs: tuple[str, ...] = ()
    skip_unreadable: bool = False
    flip: bool | None = None


@dataclass(frozen=True)
class FoundData:
    """A data set whose files are there, and which is decoded when it is known what the model wants.

    `own_classes` are those of the data set, by label; `image_shape` is the (channels, height, width) that
    its images have, or typically have where they differ.
    """

    name: str
    own_classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    notes: tuple[str, ...]
    source: Source
    root: Path
    key: str
    options: DataOptions
    progress: Progress

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the model's outputs, in order."""
        by_number = self.options.class_order == "number"
        return self.options.outputs or (order_by_number(self.own_classes) if by_number else self.own_classes)

    def load(self, spec: InputSpec | None = None) -> Dataset:
        """Return the data set, split by the seed; images of many sizes are framed as `spec` says.

        Without one they get their typical size. Pixels are decoded into the cache folder the first time
        and memory-mapped from there; that folder may be deleted at any time. Raises DataError for files
        that are damaged or classes without an output, StorageError when the cache cannot be written.
        """
        options, progress = self.options, self.progress
        spec = spec or InputSpec(self.image_shape, (), ())
        decoded = _decode(self.source, self.root, self.key, spec, options, progress)
        entry = decoded.entry
        where = "the list of classes" if options.outputs else "--class-order"
        labels = map_classes(entry.classes, self.classes, where)[decoded.labels]
        splits = split(
            labels,
            entry.train_count,
            seed=options.seed,
            train_subset=options.train_subset,
            test_subset=options.test_subset,
            calibration_images=options.calibration_images,
        )
        if len(splits.calibrate) < options.calibration_images:
            available = "training images there are" if entry.train_count else "images that are set apart"
            progress.say(f"Calibration uses all {len(splits.calibrate)} {available}")
        notes = (*self.notes, *entry.notes, *_explain_shared(entry.shared))
        for note in notes:
            progress.say(note)
        return Dataset(
            name=self.name,
            classes=self.classes,
            train=_images(decoded, splits.train, labels),
            calibrate=_images(decoded, splits.calibrate, labels),
            search=_images(decoded, splits.search, labels),
            report=_images(decoded, splits.report, labels),
            mean=entry.mean,
            std=entry.std,
            flip=self.source.flip if options.flip is None else options.flip,
            digest=_digest(decoded, splits, () if self.classes == entry.classes else self.classes),
            notes=notes,
            framed=isinstance(self.source, PictureSource),
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
        decoded = _decode(source, root, key, InputSpec((1, 1, 1), (), ()), options, progress)
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


def _decode(
    source: Source, root: Path, key: str, spec: InputSpec, options: DataOptions, progress: Progress
) -> Decoded:
    if isinstance(source, PictureSource):
        key = f"{key} {spec.digest} {options.skip_unreadable}"
        skip = options.skip_unreadable

        def read() -> Reading:
            return source.read_framed(root, spec, progress, skip_unreadable=skip)
    else:

        def read() -> Reading:
            return source.read(root, progress)

    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = (options.cache_dir or default_cache_dir()) / f"{source.name}-{digest}"
    return decode_once(folder, read, progress)


def _explain_shared(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} test images are training images too, pixel by pixel: accuracy is overstated",)


def _locate(name: str, data_dir: Path) -> tuple[Source, Path]:
    source_name, colon, path = name.partition(":")
    source = SOURCES[source_name]
    if source.takes_path and not path:
        raise SettingsError(f"--data {name}: the path is missing. Allowed: --data {source_name}:PATH.")
    if colon and not source.takes_path:
        raise SettingsError(f"--data {name}: {source_name} takes no path. Allowed: --data {source_name}.")
    return source, Path(path).expanduser() if source.takes_path else data_dir.expanduser()


def _images(decoded: Decoded, indices: Indices, labels: Indices) -> Images:
    return Images(decoded.pixels, indices, labels[indices])


def _digest(decoded: Decoded, splits: Splits, outputs: tuple[str, ...]) -> str:
    parts = {
        "train": splits.train,
        "calibrate": splits.calibrate,
        "search": splits.search,
        "report": splits.report,
    }
    return digest_of(
        {
            "images": decoded.entry.digest,
            **({"outputs": outputs} if outputs else {}),
            **{part: hashlib.sha256(ix.astype("<i8").tobytes()).hexdigest() for part, ix in parts.items()},
        }
    )
