from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Teacher
from quant_explorer.core.data.dataset import Dataset, InputSpec
from quant_explorer.core.errors import DataError, SettingsError, UnknownNameError, UnsupportedError
from quant_explorer.core.progress import Progress, Silent
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.datasets import DataOptions, input_spec
from quant_explorer.models import load_model, parameter_digest, save_weights
from quant_explorer.pipeline import subject as subject_module
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject, load_subject, takes_image_size
from quant_explorer.pipeline.training import schedule
from quant_explorer.techniques import create_step
from quant_explorer.testing.toys import TOY_SHAPE, toy_dataset, toy_linear_model
from tests.pipeline.toy_runs import Watching, toy_subject

DATA = toy_dataset(train=64, search=8, report=12)
SETTINGS = Settings("toy", "small_cnn", Path("data"), epochs=2)


@dataclass(frozen=True)
class Found:
    """What finding the toy data gives."""

    data: Dataset = DATA
    name: str = DATA.name
    own_classes: tuple[str, ...] = DATA.classes
    classes: tuple[str, ...] = DATA.classes
    image_shape: tuple[int, int, int] = TOY_SHAPE

    @property
    def trainable(self) -> bool:
        return len(self.data.train) > 0

    def load(self, spec: InputSpec, *, everything: bool = True) -> Dataset:
        return self.data


@pytest.fixture(autouse=True)
def _toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str, options: DataOptions, progress: Progress) -> Found:
        return Found()

    monkeypatch.setattr(subject_module, "find_dataset", find)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def load(run: RunFolder, settings: Settings = SETTINGS, *, train: bool = True) -> tuple[Subject, list[str]]:
    """Return the subject, and which bars there were."""
    watching = Watching(lambda label, done, note: None)
    return load_subject(settings, run, watching, train=train), watching.labels


def test_it_is_trained_once_and_found_again(run: RunFolder) -> None:
    first, bars = load(run)
    assert bars == ["train small_cnn"]
    assert len(list(run.weights.glob("baseline-*.safetensors"))) == 1
    second, bars = load(run)
    assert bars == []
    assert second.weights_digest == first.weights_digest == parameter_digest(second.model)
    assert second.trained


def test_a_cpu_quota_bounds_the_threads_of_training(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        monkeypatch.setattr(subject_module, "available_cores", lambda: 3)
        load(run, train=False)
        assert torch.get_num_threads() == 3
        monkeypatch.setattr(subject_module, "available_cores", lambda: 64)
        load(run, train=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "change",
    [
        *({"epochs": 1}, {"seed": 1}, {"label_smoothing": 0.2}, {"batch_size": 16}, {"learning_rate": 0.01}),
        {"dataloader_seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_training_is_another_file(run: RunFolder, change: dict[str, int]) -> None:
    load(run)
    load(run, replace(SETTINGS, **change))  # type: ignore[arg-type]  # a field's own type
    assert len(list(run.weights.glob("baseline-*.safetensors"))) == 2


def said(run: RunFolder, settings: Settings = SETTINGS) -> list[str]:
    watching = Watching(lambda label, done, note: None)
    load_subject(settings, run, watching)
    return [line for line in watching.messages if not line.startswith("Pre-processing")]


def test_weights_of_another_version_are_trained_again_and_why_is_reported(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(run) == []
    monkeypatch.setattr(schedule, "TRAINING_VERSION", schedule.TRAINING_VERSION + 1)
    # Another model of the same folder is no earlier version of this one.
    assert said(run, replace(SETTINGS, model="edge_cnn")) == []
    assert said(run) == ["Training small_cnn again: training code 1 is now 2."]
    assert said(run) == []
    for origin in run.weights.glob("*.origin.json"):
        origin.unlink()
    monkeypatch.setattr(schedule, "TRAINING_VERSION", schedule.TRAINING_VERSION + 1)
    assert said(run) == ["Training small_cnn again: what is here does not say how it was made."]


def test_an_interrupted_training_goes_on(run: RunFolder) -> None:
    def seen(label: str, done: int, note: str) -> None:
        if note.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_subject(SETTINGS, run, Watching(seen))
    (checkpoint,) = run.weights.iterdir()
    assert checkpoint.suffix == ".checkpoint"
    resumed, _ = load(run)
    assert list(run.weights.glob("*.checkpoint")) == []
    assert len(list(run.weights.glob("*.safetensors"))) == 1
    whole, _ = load(RunFolder(run.path / "other"))
    assert resumed.weights_digest == whole.weights_digest


def test_with_weights_nothing_is_trained(run: RunFolder, tmp_path: Path) -> None:
    own = load_model("small_cnn", weights=None, classes=4, image_shape=(3, 16, 16), seed=5).module
    path = tmp_path / "own.safetensors"
    save_weights(own, path)
    found, bars = load(run, replace(SETTINGS, weights=path))
    assert bars == []
    assert found.trained
    assert found.weights_digest == parameter_digest(own)
    assert not run.weights.exists()


def test_an_untrained_model_has_its_batch_norms_settled(run: RunFolder) -> None:
    found, bars = load(run, train=False)
    assert bars == []
    assert not found.trained
    assert not found.model.training
    assert not run.weights.exists()
    norms = [module for module in found.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.1] * len(norms)
    # What the first one sees on the calibration images, averaged over batches: by hand.
    assert isinstance(found.model, nn.Sequential)
    first = found.model.get_submodule("block1.conv1")
    with torch.no_grad():
        seen = [first(torch.from_numpy(batch)) for batch in found.calibration]
    means = torch.stack([batch.mean((0, 2, 3)) for batch in seen]).mean(0)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in seen]).mean(0)
    torch.testing.assert_close(norms[0].running_mean, means, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(norms[0].running_var, variances, rtol=1e-3, atol=1e-5)
    # And only their statistics were touched.
    fresh = load_model("small_cnn", weights=None, classes=4, image_shape=(3, 16, 16), seed=0).module
    for name, parameter in found.model.named_parameters():
        assert torch.equal(parameter, fresh.get_parameter(name))


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("small_cnn", True),
        ("resnet18", False),
        ("mobilenet_v3_large", False),
        ("vgg11_bn", False),
        ("own/net.py:make", True),
    ],
)
def test_who_takes_images_as_they_are(model: str, takes: bool) -> None:
    assert takes_image_size(model) is takes


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'small_cnn'"):
        takes_image_size("smal_cnn")


def test_images_to_time_are_real_and_never_of_the_report_split() -> None:
    subject = toy_subject(dataset=DATA)
    whole = np.concatenate(subject.calibration)
    assert whole.shape == (32, 3, 16, 16)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(subject.batch(5), whole[:5])
    # More than there are: the same again.
    np.testing.assert_array_equal(subject.batch(40), np.concatenate([whole, whole[:8]]))
    assert subject.batch(1).flags.c_contiguous


def test_the_split_has_the_labels_of_the_report_images() -> None:
    split = toy_subject(dataset=DATA).split
    assert split.digest == DATA.digest
    assert split.classes == DATA.classes
    assert split.labels == tuple(DATA.report.labels.tolist())


def test_fine_tuning_trains_in_place_for_as_long_as_asked() -> None:
    steps: list[tuple[str, int]] = []
    watching = Watching(lambda label, done, note: steps.append((label, done)))
    subject = toy_subject(dataset=DATA, progress=watching)
    model = copy.deepcopy(subject.model)
    subject.workbench().fine_tune(model, epochs=3, learning_rate=0.01, label="fine-tune")
    assert steps[-1] == ("fine-tune", 3)
    assert parameter_digest(model) != parameter_digest(subject.model)
    again = copy.deepcopy(subject.model)
    toy_subject(dataset=DATA).workbench().fine_tune(again, epochs=3, learning_rate=0.01, label="fine-tune")
    assert parameter_digest(again) == parameter_digest(model)


def test_fine_tuning_with_a_teacher_is_other_training_and_leaves_the_teacher() -> None:
    subject = toy_subject(dataset=DATA)
    bench = subject.workbench()
    assert bench.baseline is subject.model
    before = parameter_digest(subject.model)
    digests = set()
    for teacher in (None, Teacher(subject.model, 4.0, 0.9), Teacher(subject.model, 4.0, 0.0)):
        model = toy_linear_model(shape=TOY_SHAPE, seed=1)
        bench.fine_tune(model, epochs=1, learning_rate=0.01, label="fine-tune", teacher=teacher)
        digests.add(parameter_digest(model))
    # A teacher without weight is none.
    assert len(digests) == 2
    assert parameter_digest(subject.model) == before


def test_a_model_that_gives_more_in_training_is_not_fine_tuned() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_linear_model(shape=TOY_SHAPE)

        def forward(self, images: torch.Tensor) -> object:
            logits = self.inner(images)
            return (logits, logits) if self.training else logits

    with pytest.raises(UnsupportedError, match="in training mode the model returns tuple"):
        toy_subject(dataset=DATA).workbench().fine_tune(Heads(), epochs=1, learning_rate=0.01, label="")


def test_what_decides_fine_tuning_decides_its_digest() -> None:
    other = toy_dataset(train=64, search=8, report=12, seed=1)
    digests = {
        toy_subject(dataset=DATA).training_digest,
        toy_subject(dataset=DATA, seed=1).training_digest,
        toy_subject(dataset=other).training_digest,
    }
    assert len(digests) == 3
    assert toy_subject(dataset=DATA, model_seed=1).training_digest in digests


def test_progress_is_optional() -> None:
    assert toy_subject().progress == Silent()


def test_options_count_before_the_data_and_decide_digests(run: RunFolder) -> None:
    watching = Watching(lambda label, done, note: None)
    plain = load_subject(SETTINGS, run, watching, train=False)
    assert plain.spec == replace(input_spec(DATA, TOY_SHAPE), sources=plain.spec.sources)
    assert plain.spec.digest == input_spec(DATA, TOY_SHAPE).digest
    given = replace(SETTINGS, mean=(0.5,), image_size="24", channels=1, std=(0.25,))
    asked = load_subject(given, run, watching, train=False)
    assert asked.spec.shape == (1, 24, 24)
    assert asked.calibration[0].shape[1:] == (1, 24, 24)
    assert (asked.spec.mean, asked.spec.std) == ((0.5,), (0.25,))
    assert asked.training_digest != plain.training_digest
    assert watching.messages[-1].startswith("Pre-processing: 1 channel (option), 24 x 24 (option)")


def test_without_training_images_nothing_is_trained(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = replace(DATA, train=replace(DATA.train, indices=DATA.train.indices[:0]))
    found = Found(empty)
    monkeypatch.setattr(subject_module, "find_dataset", lambda *_: found)
    with monkeypatch.context() as undecoded:
        # Said before any image is decoded, which may take long.
        undecoded.delattr(Found, "load")
        with pytest.raises(
            DataError, match=r"toy has no training images, so small_cnn cannot be trained.*--weights"
        ):
            load(run)
    # Where unreadable files are skipped, it is known only then.
    with monkeypatch.context() as hopeful:
        hopeful.setattr(Found, "trainable", True)
        with pytest.raises(DataError, match="toy has no training images, so small_cnn cannot be trained"):
            load(run)
    loaded = load_model("small_cnn", weights=None, classes=4, image_shape=TOY_SHAPE, seed=0)
    save_weights(loaded.module, tmp_path / "w.safetensors")
    subject, _ = load(run, replace(SETTINGS, weights=tmp_path / "w.safetensors"))
    preparation = Preparation(Experiment(subject, run, MeasurementProtocol()))
    static = create_step("static_int8")
    assert preparation.candidate((static,)).spec.precision == "int8"
    with pytest.raises(UnsupportedError, match="it trains, and toy has no training images"):
        preparation.candidate((static, create_step("qat")))


def test_a_layer_to_keep_in_float_that_is_not_there_is_reported_at_once(run: RunFolder) -> None:
    with pytest.raises(SettingsError, match=r"--float-layer clasifier: .*Allowed: .*classifier"):
        load(run, replace(SETTINGS, float_layers=("clasifier", "block1.*")), train=False)
