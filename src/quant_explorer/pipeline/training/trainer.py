"""The training loop: of the FP32 baseline, and of whatever a technique fine-tunes."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.contracts import Teacher
from quant_explorer.core.data.dataset import Dataset, Images, InputSpec, Resize
from quant_explorer.core.errors import TrainingError
from quant_explorer.core.progress import Progress
from quant_explorer.core.settings.groups import Augment
from quant_explorer.datasets import augment, prepare
from quant_explorer.pipeline.damage import explain_damage
from quant_explorer.pipeline.training.data_parallel import DataParallel
from quant_explorer.pipeline.training.schedule import Schedule

# Larger ones leave the caches.
_EVALUATION_BATCH = 64
# Batch norms take their statistics from a part.
_LEAST_PART = 32


class _Checkpoint(TypedDict):
    epoch: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, object]
    scheduler: dict[str, object]


@dataclass(frozen=True)
class Trainer:
    """Trains models on one data set. Each epoch draws from its own seed, so a resumed run is the same run.

    With a `teacher`, what is trained learns its logits beside the labels. `augment` says whether training
    images are cropped at their own place, mirrored where the data set allows it, both ("all") or none.
    """

    dataset: Dataset
    spec: InputSpec
    seed: int
    progress: Progress
    teacher: Teacher | None = None
    augment: Augment = "all"

    def fit(
        self, model: nn.Module, schedule: Schedule, *, label: str, checkpoint: Path | None = None
    ) -> None:
        """Train `model` in place and leave it in evaluation mode.

        With `checkpoint`, the state after each epoch is kept there and an earlier one is continued.
        Raises TrainingError when the loss is not finite.
        """
        model.train().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(
            _parameter_groups(model, schedule.weight_decay),
            schedule.learning_rate,
            momentum=schedule.momentum,
            nesterov=True,
            fused=True,
        )
        batch_size = min(schedule.batch_size, len(self.dataset.train))
        steps = len(self.dataset.train) // batch_size
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            schedule.learning_rate,
            total_steps=_total_steps(steps * schedule.epochs, schedule.warmup_share),
            pct_start=schedule.warmup_share,
            # Otherwise it would be between 0.85 and 0.95, whatever the schedule says.
            cycle_momentum=False,
        )
        first = _restore(checkpoint, model, optimizer, scheduler)
        scales = self._scales(model, schedule, steps * schedule.epochs)
        example = self._prepare(self.dataset.train.take(slice(2)))
        parts = schedule.parts if batch_size // schedule.parts >= _LEAST_PART else 1
        with self.progress.task(label, steps * schedule.epochs) as bar, torch.random.fork_rng(devices=[]):
            bar.advance(steps * first)
            for epoch in range(first, schedule.epochs):
                # Of dropout, where a user's model has it.
                torch.default_generator.manual_seed(_draw_seed(self.seed, epoch))
                note = f"epoch {epoch + 1}/{schedule.epochs}"
                with DataParallel(model, parts, example=example) as parallel:
                    for step, (pixels, labels) in enumerate(self._epoch(epoch, batch_size), epoch * steps):
                        images = self._prepare(pixels, scales[step])
                        loss = parallel.backward(images, labels, partial(self._loss, schedule))
                        if not math.isfinite(loss):
                            raise TrainingError(
                                f"{label}: the loss is {loss} in epoch {epoch + 1}; use a lower learning "
                                "rate or check the weights and the data"
                            )
                        optimizer.step()
                        scheduler.step()
                        bar.advance(1, f"{note} loss {loss:.3f}")
                accuracy = self.accuracy(model, self.dataset.search)
                bar.advance(0, f"{note} loss {loss:.3f} search top-1 {accuracy:.1%}")
                if checkpoint is not None:
                    _save(checkpoint, epoch + 1, model, optimizer, scheduler)
        model.eval().to(memory_format=torch.contiguous_format)

    def accuracy(self, model: nn.Module, images: Images) -> float:
        """Return the top-1 accuracy of the in-memory model; for progress only, never reported."""
        if not len(images):
            return math.nan
        model.eval()
        hits = 0
        with torch.no_grad():
            for start in range(0, len(images), _EVALUATION_BATCH):
                part = slice(start, start + _EVALUATION_BATCH)
                logits = model(self._prepare(images.take(part)))
                hits += int((logits.argmax(1).numpy() == images.labels[part]).sum())
        model.train()
        return hits / len(images)

    def _scales(self, model: nn.Module, schedule: Schedule, steps: int) -> list[float]:
        """Return the scale of the images of each step: 1 throughout where the model takes one size only."""
        pixels = self.dataset.train.take(slice(1))
        if not all(_takes(model, self._prepare(pixels, scale)) for _, scale in schedule.image_scales):
            return [1.0] * steps
        shares = (step / steps for step in range(steps))
        return [
            next((scale for until, scale in schedule.image_scales if share < until), 1.0) for share in shares
        ]

    def _epoch(self, epoch: int, batch_size: int) -> Iterator[tuple[NDArray[np.uint8], torch.Tensor]]:
        images = self.dataset.train
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(images))
        mirrored = self._mirrored(epoch)
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            pixels = augment(
                images.take(chosen), rng, mirrored[chosen], shifted=self.augment in ("all", "crop")
            )
            yield pixels, torch.from_numpy(images.labels[chosen])

    def _mirrored(self, epoch: int) -> NDArray[np.bool_]:
        """Say which images are mirrored: half of them, and in the next epoch the other half.

        Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (alternating flip).
        """
        count = len(self.dataset.train)
        if not self.dataset.flip or self.augment not in ("all", "flip"):
            return np.zeros(count, np.bool_)
        # NumPy fills seeds up with zeros: of another length, but for the 1 it would be that of epoch 0.
        rng = np.random.default_rng([self.seed, 0, 1])
        mirrored_first = rng.integers(0, 2, count, dtype=np.bool_)
        return mirrored_first ^ bool(epoch % 2)

    def _loss(
        self, schedule: Schedule, model: nn.Module, batch: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        bfloat16 = torch.autocast("cpu", torch.bfloat16) if schedule.bfloat16 else contextlib.nullcontext()
        with bfloat16:
            logits = model(batch)
            loss = F.cross_entropy(logits, labels, label_smoothing=schedule.label_smoothing)
            if self.teacher is not None:
                loss = distillation_loss(logits, loss, batch, self.teacher)
        return loss

    def _prepare(self, pixels: NDArray[np.uint8], scale: float = 1.0) -> torch.Tensor:
        """Return what the model takes, at `scale` of its size; the pixels are resized, which costs least."""
        spec = self.dataset.remaining(self.spec)
        channels, *sides = spec.shape
        if scale != 1:
            height, width = (max(1, round(side * scale)) for side in sides)
            resize = None if spec.resize is None else _scaled(spec.resize, scale)
            if resize is None:
                pixels = _resize(pixels, height, width)
            batch = prepare(pixels, replace(spec, shape=(channels, height, width), resize=resize))
        else:
            batch = prepare(pixels, spec)
        return torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)


def distillation_loss(
    logits: torch.Tensor, label_loss: torch.Tensor, batch: torch.Tensor, teacher: Teacher
) -> torch.Tensor:
    """Return w T^2 KL(teacher || student) + (1 - w) `label_loss`, a scalar in nats, mean over the batch.

    `logits` (n, classes) are the student's for `batch`. Source: Hinton et al., "Distilling the Knowledge in
    a Neural Network", 2015, section 2.
    """
    with torch.no_grad():
        target = F.log_softmax(teacher.model(batch) / teacher.temperature, dim=1)
    student = F.log_softmax(logits / teacher.temperature, dim=1)
    divergence = F.kl_div(student, target, reduction="batchmean", log_target=True)
    return teacher.weight * teacher.temperature**2 * divergence + (1 - teacher.weight) * label_loss


def _scaled(resize: Resize, scale: float) -> Resize:
    if isinstance(resize, int):
        return max(1, round(resize * scale))
    height, width = (max(1, round(side * scale)) for side in resize)
    return height, width


def _resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    resized = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return what SGD trains: weights decay, biases and the scales of batch norms do not.

    Source: He et al., "Bag of Tricks for Image Classification", 2019, section 3.1 (no bias decay).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _takes(model: nn.Module, batch: torch.Tensor) -> bool:
    """Say whether the model maps images of this size; what else is wrong with it shows in training."""
    model.eval()
    try:
        with torch.no_grad():
            model(batch)
    except (AssertionError, RuntimeError, ValueError):
        return False
    finally:
        model.train()
    return True


def _total_steps(steps: int, warmup_share: float) -> int:
    total = max(2, steps)
    # OneCycleLR divides by the steps of its warm-up less one.
    return total + 1 if warmup_share * total == 1 else total


def _draw_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _save(
    path: Path,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    state: _Checkpoint = {
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _restore(
    path: Path | None,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    if path is None or not path.exists():
        return 0
    with explain_damage(path):
        state: _Checkpoint = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    return state["epoch"]
