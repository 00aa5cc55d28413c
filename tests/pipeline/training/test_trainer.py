from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from quant_explorer.core.contracts import Teacher
from quant_explorer.core.data.dataset import Dataset, Images
from quant_explorer.core.errors import StorageError, TrainingError
from quant_explorer.core.progress import Progress, Silent
from quant_explorer.core.settings.groups import Augment
from quant_explorer.datasets import input_spec
from quant_explorer.models import parameter_digest
from quant_explorer.pipeline.training.schedule import Schedule
from quant_explorer.pipeline.training.trainer import Trainer, distillation_loss
from quant_explorer.testing.reference import differences
from quant_explorer.testing.toys import toy_dataset, toy_model
from tests.pipeline.toy_runs import Watching

DATA = toy_dataset(train=128, search=32, report=8)
SCHEDULE = Schedule(epochs=3, learning_rate=0.05, batch_size=32)


def trainer(data: Dataset = DATA, *, seed: int = 0, progress: Progress | None = None) -> Trainer:
    return Trainer(data, input_spec(data, data.image_shape), seed, progress or Silent())


def trained(model: nn.Module | None = None, schedule: Schedule = SCHEDULE, *, seed: int = 0) -> str:
    """Return the digest of the weights that training leaves behind."""
    model = model or toy_model()
    trainer(seed=seed).fit(model, schedule, label="train")
    return parameter_digest(model)


def with_dropout() -> nn.Module:
    model = toy_model()
    assert isinstance(model, nn.Sequential)
    return nn.Sequential(*list(model)[:-1], nn.Dropout(0.5), model[-1])


class Interrupted(Watching):
    """A Progress that presses Ctrl-C in one step."""

    def __init__(self, step: int) -> None:
        def seen(label: str, done: int, note: str) -> None:
            if done == step:
                raise KeyboardInterrupt

        super().__init__(seen)


def test_it_learns_and_leaves_the_model_ready_to_use() -> None:
    losses: list[float] = []

    def seen(label: str, done: int, note: str) -> None:
        words = note.split()
        if "loss" in words:
            losses.append(float(words[words.index("loss") + 1]))

    model = toy_model()
    fit = trainer(progress=Watching(seen))
    before = fit.accuracy(model.eval(), DATA.search)
    fit.fit(model, Schedule(epochs=8, learning_rate=0.3, batch_size=32), label="train")
    assert not model.training
    assert losses[-1] < 0.5 * losses[0]
    # Chance is a quarter.
    assert fit.accuracy(model.eval(), DATA.search) > max(0.7, before)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_the_bar_counts_steps_and_says_loss_and_accuracy() -> None:
    notes: list[tuple[int, str]] = []
    trainer(progress=Watching(lambda label, done, note: notes.append((done, note)))).fit(
        toy_model(), SCHEDULE, label="train"
    )
    done, note = notes[-1]
    assert done == 3 * 128 // 32
    assert note.startswith("epoch 3/3 loss ")
    assert "search top-1 " in note


@pytest.mark.parametrize("model", [toy_model, with_dropout])
@pytest.mark.parametrize("schedule", [SCHEDULE, dataclasses.replace(SCHEDULE, batch_size=64)])
def test_the_same_seed_gives_the_same_weights(model: type[nn.Module], schedule: Schedule) -> None:
    first = trained(model(), schedule)
    # Whatever the caller's random state is.
    torch.manual_seed(12345)
    assert trained(model(), schedule) == first
    assert trained(model(), schedule, seed=1) != first


@pytest.fixture
def optimizers(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.SGD]:
    """Collects the optimizer of each step."""
    seen: list[torch.optim.SGD] = []
    step = torch.optim.SGD.step

    def watched(optimizer: torch.optim.SGD) -> None:
        seen.append(copy.deepcopy(optimizer))
        step(optimizer)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    return seen


def test_momentum_is_that_of_the_schedule_in_every_step(optimizers: list[torch.optim.SGD]) -> None:
    trained(schedule=dataclasses.replace(SCHEDULE, momentum=0.8))
    seen = [group["momentum"] for optimizer in optimizers for group in optimizer.param_groups]
    assert seen == [0.8] * 12 * 2


@pytest.mark.parametrize(
    ("model", "without_decay"),
    [(toy_model, True), (lambda: nn.Sequential(nn.Flatten(), nn.Linear(768, 4, bias=False)), False)],
)
def test_weights_decay_and_nothing_else_does(
    model: type[nn.Module], without_decay: bool, optimizers: list[torch.optim.SGD]
) -> None:
    trained(model(), dataclasses.replace(SCHEDULE, weight_decay=0.01))
    decayed, others = optimizers[0].param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in others["params"])
    assert bool(others["params"]) == without_decay


def test_large_batches_are_computed_in_parts() -> None:
    sizes: list[int] = []

    class Counts(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # Two images are what it is tried on.
            if self.training and len(x) != 2:
                sizes.append(len(x))
            for layer in self:
                x = layer(x)
            return x

    short = Schedule(epochs=1, learning_rate=0.01, batch_size=64)
    trained(Counts(*toy_model()), short)
    assert sizes == [32] * 4
    sizes.clear()
    trained(Counts(*toy_model()), dataclasses.replace(short, batch_size=62))
    assert sizes == [62] * 2


class Seen(nn.Sequential):
    """A model that keeps the sizes of the images it is trained on."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.sizes.append(tuple(x.shape[2:]))
        for layer in self:
            x = layer(x)
        return x


GROWING = dataclasses.replace(SCHEDULE, image_scales=((0.25, 0.5), (0.6, 0.75)))


def test_images_grow_to_their_full_size() -> None:
    model = Seen(*toy_model())
    trained(model, GROWING)
    # Of 12 steps a quarter is 3, and 0.6 is 7.2.
    assert model.sizes == [(8, 8)] * 3 + [(12, 12)] * 5 + [(16, 16)] * 4


def test_a_model_for_one_size_sees_only_that() -> None:
    model = Seen(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    trained(model, GROWING)
    assert model.sizes == [(16, 16)] * 12


def test_the_callers_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    trained(with_dropout())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("model", "step"), [(toy_model, 1), (toy_model, 11), (with_dropout, 4), (with_dropout, 7)]
)
def test_a_resumed_run_is_the_same_run(tmp_path: Path, model: type[nn.Module], step: int) -> None:
    checkpoint = tmp_path / "weights" / "train.checkpoint"
    whole = trained(model(), GROWING)
    with pytest.raises(KeyboardInterrupt):
        trainer(progress=Interrupted(step)).fit(model(), GROWING, label="train", checkpoint=checkpoint)
    assert checkpoint.exists() == (step > 4)
    resumed = model()
    steps: list[int] = []
    watching = Watching(lambda label, done, note: steps.append(done))
    trainer(progress=watching).fit(resumed, GROWING, label="train", checkpoint=checkpoint)
    assert parameter_digest(resumed) == whole
    # It began behind the epochs that were done: 4 steps each.
    assert steps[0] == 4 * ((step - 1) // 4)


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("in the way")
    checkpoint = tmp_path / "weights" / "train.checkpoint"
    with pytest.raises(StorageError, match=r"train\.checkpoint: cannot be written"):
        trainer().fit(toy_model(), SCHEDULE, label="train", checkpoint=checkpoint)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(bad: float) -> None:
    model = toy_model()
    with torch.no_grad():
        next(iter(model.parameters())).fill_(bad)
    with pytest.raises(TrainingError, match="train: the loss is nan in epoch 1; use a lower learning rate"):
        trained(model)


def test_a_learning_rate_that_is_far_too_high_ends_training_or_not_but_never_gives_nan() -> None:
    model = toy_model()
    with pytest.raises(TrainingError):
        trained(model, Schedule(epochs=3, learning_rate=1e30, batch_size=32, warmup_share=0.01))


# Ten steps of which a tenth are warm-up: OneCycleLR would divide by zero.
@pytest.mark.parametrize("images", [4, 8, 64, 80, 88])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_any_number_of_steps_can_be_scheduled(images: int, share: float) -> None:
    data = toy_dataset(train=images, search=4, report=4)
    model = toy_model()
    before = parameter_digest(model)
    trainer(data).fit(model, Schedule(1, 0.01, batch_size=8, warmup_share=share), label="train")
    assert parameter_digest(model) != before


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    seen: list[int] = []
    data = toy_dataset(train=12, search=4, report=4)
    trainer(data, progress=Watching(lambda label, done, note: seen.append(done))).fit(
        toy_model(), Schedule(2, 0.01, batch_size=64), label="train"
    )
    assert seen[-1] == 2


def test_accuracy_is_that_of_the_images_and_of_none_there_is_none() -> None:
    class Says(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 1.0, 0.0, 0.0]]).expand(len(images), 4)

    nothing = np.array([], np.int64)
    assert trainer().accuracy(Says(), DATA.search) == np.mean(DATA.search.labels == 1)
    assert np.isnan(trainer().accuracy(Says(), Images(DATA.search.pixels, nothing, nothing)))


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (4.0, 0.9), (2.0, 0.0)])
def test_distillation_has_the_loss_of_the_formula(temperature: float, weight: float) -> None:
    batch = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    student, model = toy_model()(batch).detach(), toy_model(seed=1)
    loss = distillation_loss(student, torch.tensor(1.25), batch, Teacher(model, temperature, weight))

    def soft(logits: torch.Tensor) -> NDArray[np.float64]:
        powers = np.exp(logits.detach().double().numpy() / temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)

    target, found = soft(model(batch)), soft(student)
    divergence = (target * np.log(target / found)).sum(axis=1).mean()
    assert float(loss) == pytest.approx(weight * temperature**2 * divergence + (1 - weight) * 1.25, rel=1e-4)


def test_a_student_learns_what_the_teacher_says_and_not_what_the_labels_say() -> None:
    class Says(nn.Module):
        """The class after the one that the label names, for sure."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(images).roll(1, dims=1)
            return logits

    model, labels = toy_model(), DATA.search.labels
    schedule = Schedule(epochs=8, learning_rate=0.3, batch_size=32)
    trainer().fit(model, schedule, label="train")
    student, teacher = toy_model(seed=1), Says(copy.deepcopy(model)).eval()
    before = copy.deepcopy(teacher)
    taught = dataclasses.replace(trainer(), teacher=Teacher(teacher, temperature=1.0, weight=1.0))
    taught.fit(student, schedule, label="distill")
    shifted = dataclasses.replace(DATA.search, labels=(labels + 1) % 4)
    # Chance is a quarter.
    assert taught.accuracy(student.eval(), shifted) > 0.7
    assert taught.accuracy(student.eval(), DATA.search) < 0.25
    assert differences(before, teacher) == []


@pytest.mark.parametrize("flip", [True, False])
def test_an_image_is_mirrored_in_every_other_epoch_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    epochs: list[dict[bytes, bool]] = []

    def spy(
        pixels: NDArray[np.uint8],
        rng: np.random.Generator,
        mirrored: NDArray[np.bool_],
        *,
        shifted: bool,
    ) -> NDArray[np.uint8]:
        assert shifted
        epochs[-1].update(zip((image.tobytes() for image in pixels), mirrored.tolist(), strict=True))
        return pixels

    monkeypatch.setattr("quant_explorer.pipeline.training.trainer.augment", spy)
    training = trainer(dataclasses.replace(DATA, flip=flip))
    for epoch in range(3):
        epochs.append({})
        for _ in training._epoch(epoch, 1):
            pass
    first, second, third = epochs
    count = len(DATA.train)
    assert len(first) == count
    assert third == first
    if flip:
        assert count / 4 < sum(first.values()) < count * 3 / 4
        assert second == {image: not mirrored for image, mirrored in first.items()}
    else:
        assert not any(first.values())
        assert not any(second.values())


@pytest.mark.parametrize(
    ("augment", "shifts", "mirrors"), [("crop", True, False), ("flip", False, True), ("none", False, False)]
)
def test_what_is_done_to_training_images_is_a_choice(augment: Augment, shifts: bool, mirrors: bool) -> None:
    data = dataclasses.replace(DATA, flip=True)
    originals = {image.tobytes() for image in data.train.take(slice(None))}
    mirrored = {image[:, ::-1].tobytes() for image in data.train.take(slice(None))}
    chosen = dataclasses.replace(trainer(data), augment=augment)
    seen = {image.tobytes() for pixels, _ in chosen._epoch(0, 1) for image in pixels}
    assert bool(seen - originals - mirrored) is shifts
    assert (bool(seen & mirrored) and bool(seen & originals)) is mirrors
