"""A data set that was found: decoded when it is known what the model wants, and only what is needed of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.data.dataset import Dataset, Images, InputSpec
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.settings.groups import Settings
from quant_explorer.core.settings.inputs import ClassOrder
from quant_explorer.datasets.cache import Decoded, decode_once, default_cache_dir
from quant_explorer.datasets.class_names import map_classes, order_by_number
from quant_explorer.datasets.source import PictureSource, Reading, Source
from quant_explorer.datasets.splits import Indices, Splits, split


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

    @classmethod
    def of(cls, settings: Settings, outputs: tuple[str, ...] = ()) -> DataOptions:
        """Return those of a run's settings, for a model with these outputs."""
        return cls(
            data_dir=settings.data_dir,
            seed=settings.seed,
            train_subset=settings.train_subset,
            test_subset=settings.test_subset,
            calibration_images=settings.calibration_images,
            class_order=settings.class_order,
            outputs=outputs,
            skip_unreadable=settings.skip_unreadable,
            flip=settings.flip,
        )


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

    @property
    def trainable(self) -> bool:
        """Whether there are images to train on, as far as that is known before any is decoded."""
        return not isinstance(self.source, PictureSource) or self.source.listing(self.root).train_count > 0

    def load(self, spec: InputSpec | None = None, *, everything: bool = True) -> Dataset:
        """Return the data set, split by the seed; images of many sizes are framed as `spec` says.

        Without one they get their typical size. Pixels are decoded into the cache folder the first time
        and memory-mapped from there; that folder may be deleted at any time. Unless `everything` is wanted,
        training images that come as files are decoded when they are first taken, and mean and std are
        empty; with `skip_unreadable` all are decoded, since the splits depend on which can be read. Raises
        DataError for files that are damaged or classes without an output, StorageError when the cache
        cannot be written.
        """
        spec = spec or InputSpec(self.image_shape, (), ())
        if everything or self.options.skip_unreadable or not isinstance(self.source, PictureSource):
            return self._load_all(spec)
        return self._load_needed(self.source, spec)

    def _load_all(self, spec: InputSpec) -> Dataset:
        decoded = decode_found(self.source, self.root, self.key, spec, self.options, self.progress)
        entry = decoded.entry
        labels, splits = self._split(entry.classes, decoded.labels, entry.train_count)
        return self._assemble(
            decoded,
            labels,
            splits,
            Images(decoded.pixels, splits.train, labels[splits.train]),
            splits,
            (*entry.notes, *_explain_shared(entry.shared, "pixel by pixel")),
        )

    def _load_needed(self, source: PictureSource, spec: InputSpec) -> Dataset:
        listing = source.listing(self.root)
        labels, splits = self._split(listing.classes, listing.labels, listing.train_count)
        needed = np.unique(np.concatenate([splits.calibrate, splits.search, splits.report]))
        decoded = self._decode_chosen(source, spec, needed)
        later = _DecodedLater(lambda: self._decode_chosen(source, spec, splits.train))
        undecoded = later if len(splits.train) else None
        nothing = np.empty((0, *decoded.pixels.shape[1:]), np.uint8)
        train = Images(nothing, np.arange(len(splits.train)), labels[splits.train], undecoded)
        places = Splits(
            splits.train,
            *(np.searchsorted(needed, part) for part in (splits.calibrate, splits.search, splits.report)),
        )
        copies = source.count_copies(self.root, np.union1d(splits.train, splits.search), splits.report)
        notes = (*decoded.entry.notes, *_explain_shared(copies, "byte by byte", len(splits.train)))
        dataset = self._assemble(decoded, labels[needed], splits, train, places, notes)
        return replace(dataset, mean=(), std=())

    def _decode_chosen(self, source: PictureSource, spec: InputSpec, chosen: Indices) -> Decoded:
        key = f"{self.key} {hashlib.sha256(chosen.astype('<i8').tobytes()).hexdigest()}"
        return decode_found(source, self.root, key, spec, self.options, self.progress, chosen)

    def _split(
        self, own_classes: tuple[str, ...], own_labels: Indices, train_count: int
    ) -> tuple[Indices, Splits]:
        """Return labels that index the outputs of the model, and which images are in which split."""
        options = self.options
        where = "the list of classes" if options.outputs else "--class-order"
        labels = map_classes(own_classes, self.classes, where)[own_labels]
        splits = split(
            labels,
            train_count,
            seed=options.seed,
            train_subset=options.train_subset,
            test_subset=options.test_subset,
            calibration_images=options.calibration_images,
        )
        if len(splits.calibrate) < options.calibration_images:
            available = "training images there are" if train_count else "images that are set apart"
            self.progress.say(f"Calibration uses all {len(splits.calibrate)} {available}")
        return labels, splits

    def _assemble(
        self,
        decoded: Decoded,
        labels: Indices,
        splits: Splits,
        train: Images,
        places: Splits,
        notes: tuple[str, ...],
    ) -> Dataset:
        """Return the data set whose splits are at `places` of the decoded images, with their `labels`."""
        entry = decoded.entry
        notes = (*self.notes, *notes)
        for note in notes:
            self.progress.say(note)
        return Dataset(
            name=self.name,
            classes=self.classes,
            train=train,
            calibrate=_images(decoded, places.calibrate, labels),
            search=_images(decoded, places.search, labels),
            report=_images(decoded, places.report, labels),
            mean=entry.mean,
            std=entry.std,
            flip=self.source.flip if self.options.flip is None else self.options.flip,
            digest=_digest(decoded, splits, () if self.classes == entry.classes else self.classes),
            notes=notes,
            framed=isinstance(self.source, PictureSource),
        )


@dataclass(frozen=True)
class _DecodedLater:
    decode: Callable[[], Decoded]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self._decoded.pixels

    @property
    def digest(self) -> str:
        return self._decoded.entry.digest

    @cached_property
    def _decoded(self) -> Decoded:
        return self.decode()


def _explain_shared(count: int, how: str, trainable: int = 1) -> tuple[str, ...]:
    if not count:
        return ()
    if not trainable:
        return (f"{count} test images are among those set apart for decisions too, {how}",)
    return (f"{count} test images are training images too, {how}: accuracy is overstated",)


def decode_found(
    source: Source,
    root: Path,
    key: str,
    spec: InputSpec,
    options: DataOptions,
    progress: Progress,
    chosen: Indices | None = None,
) -> Decoded:
    """Return the images of a source that `find` gave `key` for, only `chosen` ones where that is given."""
    if isinstance(source, PictureSource):
        key = f"{key} {spec.digest} {options.skip_unreadable}"
        skip = options.skip_unreadable

        def read() -> Reading:
            return source.read_framed(root, spec, progress, skip_unreadable=skip, chosen=chosen)
    else:

        def read() -> Reading:
            return source.read(root, progress)

    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = (options.cache_dir or default_cache_dir()) / f"{source.name}-{digest}"
    return decode_once(folder, read, progress)


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
