"""Wrong input through the command line: the message names the problem, and there is no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from quant_explorer.cli.multi_bench import CONFIGS
from quant_explorer.models import load_model
from quant_explorer.runtimes import RUNTIMES
from tests.cli.invoking import EAGER, SMALL, Invoke, Place

CONFIGURED = ("quantize", "bench", "evaluate")


@pytest.fixture
def refused(invoke: Invoke) -> Callable[..., str]:
    """Call a command that must be refused as wrong input, and return what it said on one line."""

    def call(*arguments: str | Path) -> str:
        code, printed = invoke(*arguments)
        assert "Traceback" not in printed
        assert printed.count("error: ") == 1
        assert code == 2, printed
        return " ".join(printed.split())

    return call


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (("--data", "mnist5"), "unknown data set 'mnist5'. Did you mean 'mnist5k'?"),
        (("--data", "/no/such/thing"), "unknown data set '/no/such/thing'."),
        (("--model", "small_cn"), "unknown model 'small_cn'. Did you mean 'small_cnn'?"),
        (("--engine", "fbgem"), "unknown quantized engine 'fbgem'. Did you mean 'fbgemm'?"),
        (("--train-subset", "0"), "--train-subset 0 is out of range. Allowed: at least 1."),
        (("--test-subset", "0"), "--test-subset 0 is out of range. Allowed: at least 1."),
        (("--epochs", "0"), "--epochs 0 is out of range. Allowed: at least 1."),
        (("--fine-tune-epochs", "0"), "--fine-tune-epochs 0 is out of range. Allowed: at least 1."),
        (("--seed", "-1"), "--seed -1 is out of range."),
        (("--batch-sizes", "1,two"), "--batch-sizes 1,two: not whole numbers. Allowed: for instance 1,8,32."),
        (("--batch-sizes", ""), "not whole numbers"),
        (("--batch-sizes", "8,32"), "1 among them (the frontier is drawn at batch 1)"),
        (("--batch-sizes", "0,1"), "--batch-sizes 0 is out of range. Allowed: positive numbers"),
        (("--threads", "100000"), "--threads 100000 is out of range. Allowed: 1 to"),
        (("--rounds", "1"), "--rounds 1 is out of range. Allowed: at least 2."),
        (("--time-limit", "inf"), "--time-limit inf is out of range."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    refused: Callable[..., str], place: Place, arguments: tuple[str, ...], sentences: str
) -> None:
    assert sentences in refused("pipeline", *EAGER, *arguments)
    assert not (place.folder / "runs").exists()


def test_an_unknown_configuration_is_found_before_anything_is_trained(
    refused: Callable[..., str], place: Place
) -> None:
    for command in ("pipeline", *CONFIGURED):
        shown = refused(command, "--config", "static_int8_per_chanel")
        assert (
            "unknown configuration 'static_int8_per_chanel'. Did you mean 'static_int8_per_channel'?" in shown
        )
        assert all(config in shown for config in CONFIGS)
    assert not list(place.folder.rglob("weights"))


@pytest.mark.parametrize(
    "command", [("pipeline",), ("qat-finetune",), *((name, "--config", "bf16") for name in CONFIGURED)]
)
def test_an_unknown_runtime_is_refused_before_anything_is_written(
    refused: Callable[..., str], place: Place, command: tuple[str, ...]
) -> None:
    for both in (("--runtime", "eager", "--runtime", "eagre"), ("--runtime", "eager,eagre")):
        shown = refused(*command, *both)
        assert "unknown runtime 'eagre'. Did you mean 'eager'? Allowed: " in shown
        assert all(runtime in shown for runtime in RUNTIMES)
    assert not list(place.folder.iterdir())


def test_a_wrong_name_does_not_stick_to_the_folder(
    refused: Callable[..., str], place: Place, invoke: Invoke
) -> None:
    refused("train", "--run-dir", "run", "--data", "imagefolder:nowhere")
    shown = refused("train", "--run-dir", "run", "--data", "imagefolder:elsewhere")
    assert "elsewhere" in shown
    assert "was made with" not in shown


@pytest.mark.parametrize("command", CONFIGURED)
def test_a_configuration_must_be_named(invoke: Invoke, command: str) -> None:
    code, printed = invoke(command)
    assert code == 2
    assert "--config" in printed


def test_there_is_nothing_to_report_yet(refused: Callable[..., str]) -> None:
    assert "there is no study yet; `quant-explorer pipeline` makes one" in refused("report")


def test_verbose_shows_where_it_happened(invoke: Invoke) -> None:
    code, printed = invoke("pipeline", *EAGER, "--data", "mnist5", "-v")
    assert code == 2
    assert "Traceback" in printed
    assert "unknown data set 'mnist5'" in printed


def write_images(folder: Path, classes: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")


@pytest.fixture
def tree(place: Place) -> Path:
    """A sound folder of images, two classes."""
    write_images(place.folder / "images" / "train", {"cat": 6, "dog": 6})
    write_images(place.folder / "images" / "test", {"cat": 2, "dog": 2})
    return place.folder / "images"


def test_a_truncated_image_is_named(refused: Callable[..., str], tree: Path) -> None:
    image = tree / "train" / "dog" / "3.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    assert "train/dog/3.jpg" in refused("train", "--data", f"imagefolder:{tree}")


def test_an_unreadable_image_is_named(refused: Callable[..., str], tree: Path) -> None:
    (tree / "test" / "cat" / "1.jpg").write_text("this is no image")
    assert "test/cat/1.jpg" in refused("train", "--data", f"imagefolder:{tree}")


def test_one_class_is_not_a_classification(refused: Callable[..., str], place: Place) -> None:
    for part in ("train", "test"):
        write_images(place.folder / "images" / part, {"cat": 3})
    shown = refused("train", "--data", "imagefolder:images")
    assert "only one class (cat); at least 2 are needed" in shown


def test_a_class_without_images_is_named(refused: Callable[..., str], tree: Path) -> None:
    for image in (tree / "test" / "dog").iterdir():
        image.unlink()
    shown = refused("train", "--data", f"imagefolder:{tree}")
    assert "images/test: no images for dog" in shown


def test_a_folder_without_images_says_what_is_expected(refused: Callable[..., str], place: Place) -> None:
    (place.folder / "images" / "train").mkdir(parents=True)
    (place.folder / "images" / "test").mkdir()
    shown = refused("train", "--data", "imagefolder:images")
    assert "no class folders" in shown
    assert "PATH/train/<class>/*.jpg" in shown


def test_classes_that_differ_are_listed(refused: Callable[..., str], tree: Path) -> None:
    write_images(tree / "test", {"bird": 1})
    shown = refused("train", "--data", f"imagefolder:{tree}")
    assert "hold different classes; only in" in shown
    assert "bird" in shown


def test_more_images_than_there_are_cannot_be_drawn(refused: Callable[..., str], tree: Path) -> None:
    shown = refused("train", "--data", f"imagefolder:{tree}", "--train-subset", "13")
    assert "--train-subset 13. Allowed: 2 to 12." in shown


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """Those of a small_cnn for mnist5k."""
    return load_model(
        "small_cnn", weights=None, classes=10, image_shape=(1, 28, 28), seed=0
    ).module.state_dict()


def with_weights(place: Place, state: dict[str, torch.Tensor]) -> tuple[str, ...]:
    safetensors.torch.save_file(state, place.folder / "own.safetensors")
    return ("pipeline", *EAGER, *SMALL, "--weights", "own.safetensors")


def test_weights_of_another_shape_are_listed(
    refused: Callable[..., str], place: Place, weights: dict[str, torch.Tensor]
) -> None:
    weights["classifier.weight"] = torch.zeros(7, 128)
    shown = refused(*with_weights(place, weights))
    assert "do not fit the model" in shown
    assert "classifier.weight (7, 128), model (10, 128)" in shown


def test_missing_and_unexpected_weights_are_listed(
    refused: Callable[..., str], place: Place, weights: dict[str, torch.Tensor]
) -> None:
    weights["head.weight"] = weights.pop("classifier.weight")
    shown = refused(*with_weights(place, weights))
    assert "missing: classifier.weight" in shown
    assert "unexpected: head.weight" in shown


def test_nan_weights_are_named(
    refused: Callable[..., str], place: Place, weights: dict[str, torch.Tensor]
) -> None:
    weights["block2.conv1.weight"][0, 0, 0, 0] = float("nan")
    shown = refused(*with_weights(place, weights))
    assert "NaN or infinite weights in block2.conv1.weight" in shown


def test_weights_that_are_not_there_are_named(refused: Callable[..., str]) -> None:
    assert "nowhere.pt: no such file" in refused("pipeline", *EAGER, *SMALL, "--weights", "nowhere.pt")


@pytest.mark.parametrize(
    ("source", "sentences"),
    [
        (None, "no file"),
        ("def make(): return 3", "returned int, not a torch.nn.Module"),
        ("def other(): pass", "no function 'make'. It has: other."),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("import torch\ndef make(): return torch.nn.Linear(3, 3)", "cannot take a batch of shape"),
    ],
)
def test_a_users_model_that_does_not_work_says_why(
    refused: Callable[..., str], place: Place, source: str | None, sentences: str
) -> None:
    if source is not None:
        (place.folder / "mine.py").write_text(source)
    assert sentences in refused("train", *SMALL, "--model", "mine.py:make")


def test_a_run_dir_that_is_a_file_is_wrong_use(invoke: Invoke, place: Place) -> None:
    (place.folder / "file").write_text("")
    code, printed = invoke("train", "--run-dir", "file")
    assert code == 2
    assert "is a file" in printed


@pytest.mark.slow
def test_a_report_says_nothing_that_was_not_so(refused: Callable[..., str], copied: Place) -> None:
    assert "run was made with --seed 0 (now 7)" in refused("report", "--run-dir", "run", "--seed", "7")
