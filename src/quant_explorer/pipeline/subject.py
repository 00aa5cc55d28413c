"""The subject of a run: a trained float model with its data, which variants are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from quant_explorer.core.contracts import Batch, Teacher, Workbench
from quant_explorer.core.dataset import Dataset, InputSpec
from quant_explorer.core.difference import Facts, describe_changes
from quant_explorer.core.measurement import ReportSplit
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.settings.groups import CALIBRATION_BATCH, Settings
from quant_explorer.datasets import input_spec, load_dataset, prepare
from quant_explorer.machine.topology import available_cores
from quant_explorer.models import (
    MODELS,
    load_model,
    load_weights,
    parameter_digest,
    save_weights,
)
from quant_explorer.models.user import parse_user_model
from quant_explorer.pipeline.building.origin import Origin
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.training.schedule import GROWING_IMAGES, Schedule, facts_of_training

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
        return facts_of_training(schedule, self.dataset, self.spec, self.settings.batch_seed)

    @property
    def training_digest(self) -> str:
        """Names all that decides the outcome of fine-tuning beside the parameters of its technique."""
        return digest_of(self.training_facts)

    @property
    def split(self) -> ReportSplit:
        """The labels of the report split."""
        dataset = self.dataset
        return ReportSplit(
            dataset.digest, dataset.name, dataset.classes, tuple(dataset.report.labels.tolist())
        )

    @cached_property
    def calibration(self) -> Sequence[Batch]:
        """The calibration images as batches of float32 (n, channels, height, width)."""
        images = self.dataset.calibrate
        return tuple(
            prepare(images.take(slice(start, start + CALIBRATION_BATCH)), self.spec)
            for start in range(0, len(images), CALIBRATION_BATCH)
        )

    def batch(self, size: int) -> Batch:
        """Return `size` real images to time and to measure memory with; never of the report split."""
        images = self.dataset.calibrate
        return prepare(images.take(np.arange(size, dtype=np.int64) % len(images)), self.spec)

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
        from quant_explorer.pipeline.training.trainer import Trainer

        schedule = self._fine_tuning(epochs=epochs, learning_rate=learning_rate)
        trainer = Trainer(self.dataset, self.spec, self.settings.batch_seed + 1, self.progress, teacher)
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
    dataset = load_dataset(
        settings.data,
        data_dir=settings.data_dir,
        seed=settings.seed,
        train_subset=settings.train_subset,
        test_subset=settings.test_subset,
        calibration_images=settings.calibration_images,
        progress=progress,
    )
    loaded = load_model(
        settings.model,
        weights=settings.weights,
        classes=len(dataset.classes),
        image_shape=dataset.image_shape,
        seed=settings.seed,
    )
    subject = Subject(
        model_name=loaded.name,
        model=loaded.module,
        spec=input_spec(dataset, loaded.input_shape),
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


def takes_image_size(model: str) -> bool:
    """Say whether a model takes images of any size as they are; others want 224 pixels."""
    shape = (3, 32, 32)
    return (parse_user_model(model) or MODELS[model]).input_shape(shape) == shape


def _train(subject: Subject, run: RunFolder) -> None:
    from quant_explorer.pipeline.training.trainer import Trainer

    dataset, spec, settings, progress = subject.dataset, subject.spec, subject.settings, subject.progress
    schedule = Schedule(
        settings.epochs,
        settings.learning_rate,
        settings.batch_size,
        label_smoothing=settings.label_smoothing,
        image_scales=GROWING_IMAGES,
    )
    facts = facts_of_training(schedule, dataset, spec, settings.batch_seed)
    origin = Origin(subject.model_name, {**facts, "initial weights": parameter_digest(subject.model)})
    path = run.weights / f"baseline-{digest_of(origin.facts)}.safetensors"
    if path.exists():
        load_weights(subject.model, path)
        return
    _say_why_anew(origin, run, progress)
    checkpoint = path.with_suffix(".checkpoint")
    Trainer(dataset, spec, settings.batch_seed, progress).fit(
        subject.model, schedule, label=f"train {subject.model_name}", checkpoint=checkpoint
    )
    origin.write(path)
    save_weights(subject.model, path)
    checkpoint.unlink(missing_ok=True)


def _say_why_anew(origin: Origin, run: RunFolder, progress: Progress) -> None:
    found = origin.differences(run.weights.glob("baseline-*.safetensors"))
    if found is not None:
        progress.say(f"Training {origin.made} anew: {describe_changes(found)}.")


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
