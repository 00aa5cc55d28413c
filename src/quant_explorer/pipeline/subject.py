"""The subject of a run: a trained float model with its data, which variants are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch, Teacher, Workbench
from quant_explorer.core.data.dataset import Dataset, InputSpec
from quant_explorer.core.data.preprocessing import Preprocessing, describe_preprocessing, merged, resolve
from quant_explorer.core.difference import Facts, describe_changes
from quant_explorer.core.errors import DataError, ModelError, SettingsError, UnsupportedError, explain
from quant_explorer.core.measurement import ReportSplit
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.settings.groups import CALIBRATION_BATCH, Settings
from quant_explorer.datasets import (
    DataOptions,
    FoundData,
    data_preprocessing,
    find_dataset,
    prepare,
    read_classes,
)
from quant_explorer.machine.topology import available_cores
from quant_explorer.models import (
    PUBLISHED,
    Labelled,
    LoadedModel,
    check_training,
    find_architecture,
    load_model,
    load_weights,
    parameter_digest,
    save_weights,
)
from quant_explorer.pipeline.building.origin import Origin
from quant_explorer.pipeline.damage import explain_damage
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.training.schedule import GROWING_IMAGES, Schedule, facts_of_training
from quant_explorer.techniques.float_layers import explain_unmatched

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Subject:
    """A float model in evaluation mode, and the data it is calibrated, fine-tuned and scored on.

    `weights_digest` is the SHA-256 of the float weights.
    """

    model_name: str
    model: nn.Module
    spec: InputSpec
    dataset: Dataset
    trained: bool
    weights_digest: str
    settings: Settings
    progress: Progress

    @property
    def training_facts(self) -> Facts:
        """All that decides the outcome of fine-tuning beside the parameters of its technique."""
        schedule = self._fine_tuning(epochs=0, learning_rate=0.0)
        settings = self.settings
        return facts_of_training(schedule, self.dataset, self.spec, settings.batch_seed, settings.augment)

    @property
    def training_digest(self) -> str:
        """Names all that decides the outcome of fine-tuning beside the parameters of its technique."""
        return digest_of(self.training_facts)

    @property
    def split(self) -> ReportSplit:
        """The labels of the report split, and of the search split."""
        dataset = self.dataset
        return ReportSplit(
            dataset.digest,
            dataset.name,
            dataset.classes,
            tuple(dataset.report.labels.tolist()),
            dataset.notes,
            tuple(dataset.search.labels.tolist()),
        )

    @cached_property
    def calibration(self) -> Sequence[Batch]:
        """The calibration images as batches of float32 (n, channels, height, width)."""
        images = self.dataset.calibrate
        return tuple(
            self.prepare(images.take(slice(start, start + CALIBRATION_BATCH)))
            for start in range(0, len(images), CALIBRATION_BATCH)
        )

    def batch(self, size: int) -> Batch:
        """Return `size` real images to time and to measure memory with; never of the report split."""
        images = self.dataset.calibrate
        return self.prepare(images.take(np.arange(size, dtype=np.int64) % len(images)))

    def prepare(self, pixels: NDArray[np.uint8]) -> Batch:
        """Turn decoded images (n, h, w, c) to what the model takes, float32 (n, C, H, W)."""
        return prepare(pixels, self.dataset.remaining(self.spec))

    def workbench(self) -> Workbench:
        """Return what techniques may use: the calibration batches, the training loop, the float model."""
        return Workbench(self.calibration, self._fine_tune, self.model)

    def _fine_tune(
        self,
        model: nn.Module,
        *,
        epochs: int,
        learning_rate: float,
        label: str,
        teacher: Teacher | None = None,
    ) -> None:
        from torch import fx

        from quant_explorer.pipeline.training.trainer import Trainer

        # A graph was traced in evaluation mode, and gives the same in training.
        if not isinstance(model, fx.GraphModule):
            try:
                check_training(model, self.spec.shape, len(self.dataset.classes))
            except ModelError as error:
                raise UnsupportedError(explain(error)) from error
        schedule = self._fine_tuning(epochs=epochs, learning_rate=learning_rate)
        settings = self.settings
        trainer = Trainer(
            self.dataset, self.spec, settings.batch_seed + 1, self.progress, teacher, settings.augment
        )
        trainer.fit(model, schedule, label=label)

    def _fine_tuning(self, *, epochs: int, learning_rate: float) -> Schedule:
        # Float32 throughout: fake quantization and its control must differ in nothing else.
        return Schedule(
            epochs, learning_rate, batch_size=self.settings.batch_size, warmup_share=0.1, autocast=False
        )


def load_subject(settings: Settings, run: RunFolder, progress: Progress, *, train: bool = True) -> Subject:
    """Load the data and the model, and train it unless it came with weights or `train` is False.

    An untrained model has its batch norms set from the calibration images: with the statistics
    they are born with, the activations of a deep network vanish and nothing could be compared. From here on
    this process computes on no more threads than there are cores, or a CPU quota leaves.
    """
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    found = _find_data(settings, progress)
    loaded = _load_model(found, settings, progress)
    if train and not loaded.trained and not found.trainable:
        raise _untrained(found.name, loaded.name)
    dataset, spec = _prepare_data(found, loaded, settings)
    progress.say(f"Pre-processing: {describe_preprocessing(spec)}")
    subject = Subject(
        model_name=loaded.name,
        model=loaded.module,
        spec=spec,
        dataset=dataset,
        trained=loaded.trained or train,
        weights_digest="",
        settings=settings,
        progress=progress,
    )
    if not loaded.trained and train:
        _train(subject, run)
    elif not loaded.trained:
        _settle_batch_norms(subject.model, subject.calibration)
    return dataclasses.replace(subject, weights_digest=parameter_digest(subject.model))


def load_float_model(settings: Settings, progress: Progress) -> LoadedModel:
    """Load the model for the data of a run; no image is decoded and nothing is trained.

    Raises what `load_subject` does for data, model, weights and layers that are to stay in float.
    """
    return _load_model(_find_data(settings, progress), settings, progress)


def _load_model(found: FoundData, settings: Settings, progress: Progress) -> LoadedModel:
    loaded = load_model(
        settings.model,
        weights=settings.weights,
        classes=len(found.classes),
        image_shape=found.image_shape,
        seed=settings.seed,
        option=settings.preprocessing,
        weights_key=settings.weights_key,
    )
    for note in loaded.notes:
        progress.say(note)
    if problem := explain_unmatched(loaded.module, settings.float_layers):
        raise SettingsError(problem)
    return loaded


def _find_data(settings: Settings, progress: Progress) -> FoundData:
    """Find the data set, and what the outputs of the model are: a list, or names that its weights carry."""
    options = DataOptions.of(settings, read_classes(settings.classes) if settings.classes else ())
    found = find_dataset(settings.data, options, progress)
    architecture = find_architecture(settings.model, settings.weights)
    if options.outputs or not isinstance(architecture, Labelled):
        return found
    names = architecture.outputs()
    if not set(found.own_classes) <= set(names):
        return found
    progress.say(f"Classes: the {len(names)} outputs of the published weights, by name")
    return dataclasses.replace(found, options=dataclasses.replace(options, outputs=names))


def _prepare_data(found: FoundData, loaded: LoadedModel, settings: Settings) -> tuple[Dataset, InputSpec]:
    """Decode the images as the model wants them; mean and std of the data are known only then.

    Training images are decoded at once where the model is trained on them, or normalized by them.
    """
    option, channels = settings.preprocessing, loaded.input_shape[0]
    size = found.image_shape[1:]
    neutral = Preprocessing(size, None, None, "bilinear", True, channels, (0.0,), (1.0,), 1.0)
    unscaled = dataclasses.replace(option, mean=neutral.mean, std=neutral.std)
    asked = merged(option, loaded.preprocessing)
    everything = not loaded.trained or asked.mean is None or asked.std is None
    dataset = found.load(resolve(unscaled, loaded.preprocessing, neutral), everything=everything)
    data = dataclasses.replace(data_preprocessing(dataset, channels), image_size=size)
    return dataset, resolve(option, loaded.preprocessing, data)


def takes_image_size(model: str) -> bool:
    """Say whether a model takes images of any size as they are; others want the size of ImageNet's."""
    shape = (3, 32, 32)
    return not model.startswith(PUBLISHED) and find_architecture(model).input_shape(shape) == shape


def _train(subject: Subject, run: RunFolder) -> None:
    from quant_explorer.pipeline.training.trainer import Trainer

    dataset, spec, settings, progress = subject.dataset, subject.spec, subject.settings, subject.progress
    # Where files that cannot be read are skipped, none may be left.
    if explain_untrainable(dataset):
        raise _untrained(dataset.name, subject.model_name)
    check_training(subject.model, spec.shape, len(dataset.classes))
    schedule = Schedule(
        settings.epochs,
        settings.learning_rate,
        settings.batch_size,
        label_smoothing=settings.label_smoothing,
        image_scales=GROWING_IMAGES,
    )
    facts = facts_of_training(schedule, dataset, spec, settings.batch_seed, settings.augment)
    origin = Origin(subject.model_name, {**facts, "initial weights": parameter_digest(subject.model)})
    path = run.weights / f"baseline-{digest_of(origin.facts)}.safetensors"
    if path.exists():
        with explain_damage(path):
            load_weights(subject.model, path)
        return
    _explain_retraining(origin, run, progress)
    checkpoint = path.with_suffix(".checkpoint")
    Trainer(dataset, spec, settings.batch_seed, progress, augment=settings.augment).fit(
        subject.model, schedule, label=f"train {subject.model_name}", checkpoint=checkpoint
    )
    origin.write(path)
    save_weights(subject.model, path)
    checkpoint.unlink(missing_ok=True)


def _untrained(data: str, model: str) -> DataError:
    return DataError(
        f"{data} has no training images, so {model} cannot be trained. Allowed: its weights "
        "(--weights FILE), or images in train/<class>/."
    )


def explain_untrainable(dataset: Dataset) -> str | None:
    """Return why nothing can be trained on a data set, or None."""
    if len(dataset.train):
        return None
    return f"it trains, and {dataset.name} has no training images; put some into train/<class>/"


def _explain_retraining(origin: Origin, run: RunFolder, progress: Progress) -> None:
    found = origin.differences(run.weights.glob("baseline-*.safetensors"))
    if found is not None:
        progress.say(f"Training {origin.made} again: {describe_changes(found)}.")


def _settle_batch_norms(model: nn.Module, calibration: Sequence[Batch]) -> None:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = {module: module.momentum for module in model.modules() if isinstance(module, _BatchNorm)}
    for norm in norms:
        norm.reset_running_stats()
        # None is the plain average over all batches.
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in calibration:
            model(torch.from_numpy(batch))
    for norm, momentum in norms.items():
        norm.momentum = momentum
    model.eval()
