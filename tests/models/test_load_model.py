import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import quant_explorer.models
from quant_explorer.core.errors import ModelError, UnknownNameError
from quant_explorer.models import MODELS, check_output, load_model, parameter_digest, save_weights

NO_ARCHITECTURES = {
    "precision",
    "source_lines",
    *("architecture", "checkpoint", "checks", "exported", "onnx_file", "onnx_graph", "published", "user"),
    "weights",
}
CIFAR = (3, 32, 32)


def test_every_module_of_an_architecture_is_registered() -> None:
    modules = {module.name for module in pkgutil.iter_modules(quant_explorer.models.__path__)}
    registered = set()
    for name in modules:
        members = list(vars(import_module(f"quant_explorer.models.{name}")).values())
        if any(type(model) in members for model in MODELS.values()):
            registered.add(name)
    assert modules - registered == NO_ARCHITECTURES


def test_models_are_registered_under_their_own_name_and_described() -> None:
    for name, model in MODELS.items():
        assert model.name == name
        assert model.description


def test_importing_the_room_imports_nothing_heavy() -> None:
    code = "import sys, quant_explorer.models; print([m for m in sys.argv[1:] if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code, "torch", "torchvision"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert result.stdout.strip() == "[]"


def test_the_seed_decides_the_weights_and_the_callers_stream_goes_on() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (
        load_model("small_cnn", weights=None, classes=10, image_shape=CIFAR, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(3), expected)
    assert parameter_digest(first.module) == parameter_digest(second.module)
    assert parameter_digest(first.module) != parameter_digest(other.module)


def test_a_loaded_model_is_in_eval_mode_and_trained_only_with_weights(tmp_path: Path) -> None:
    fresh = load_model("small_cnn", weights=None, classes=4, image_shape=(1, 28, 28), seed=0)
    assert not fresh.trained
    assert not fresh.module.training
    assert fresh.input_shape == (1, 28, 28)
    save_weights(fresh.module, tmp_path / "w.safetensors")
    loaded = load_model(
        "small_cnn", weights=tmp_path / "w.safetensors", classes=4, image_shape=(1, 28, 28), seed=9
    )
    assert loaded.trained
    assert parameter_digest(loaded.module) == parameter_digest(fresh.module)


def test_unknown_names_list_what_is_allowed() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'small_cnn'.*resnet18"):
        load_model("small_cn", weights=None, classes=10, image_shape=CIFAR, seed=0)
    with pytest.raises(UnknownNameError, match=r"Or path/to/file\.py:function, .*goes to --weights"):
        load_model("nets/mine:build", weights=None, classes=10, image_shape=CIFAR, seed=0)


class Fixed(nn.Module):
    """Returns the same thing whatever it gets."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: torch.Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(2, 9), r"shape \(2, 9\) for 2 images; the data set has 10 classes"),
        (torch.zeros(1, 10), r"shape \(1, 10\)"),
        (torch.zeros(2, 10, 1, 1), r"shape \(2, 10, 1, 1\)"),
        (torch.zeros(2, 10, dtype=torch.int64), "torch.int64"),
        ({"logits": torch.zeros(2, 10)}, "returned dict, not one tensor"),
        (None, "returned NoneType"),
    ],
)
def test_an_output_that_is_not_one_score_a_class_is_refused(output: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_output(Fixed(output), CIFAR, 10)


def test_a_model_that_cannot_take_the_images_keeps_its_own_message() -> None:
    with pytest.raises(
        ModelError, match=r"batch of shape \(2, 3, 32, 32\).*expected input.*to have 1 channels"
    ) as caught:
        check_output(nn.Conv2d(1, 4, 3), CIFAR, 10)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("training", [True, False])
def test_checking_changes_neither_mode_nor_statistics(training: bool) -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).train(training)
    before = parameter_digest(module)
    check_output(module, CIFAR, 10)
    assert module.training is training
    assert parameter_digest(module) == before
