from dataclasses import replace
from pathlib import Path

import click
import pytest

from quant_explorer.cli.app import app
from quant_explorer.cli.options import resolve
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.settings.declaration import settings_of
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings, sweep_settings
from quant_explorer.pipeline.run import RunDescription, RunFolder


def test_without_options_everything_has_its_default(tmp_path: Path) -> None:
    _, wanted = resolve(tmp_path, {})
    assert (wanted.settings.data, wanted.settings.model) == ("mnist5k", "small_cnn")
    assert (wanted.settings.epochs, wanted.settings.seed) == (5, 0)
    assert wanted.protocol.batch_sizes == (1, 8, 32)
    assert wanted.protocol.threads == 1


def test_what_is_given_wins_over_the_folder_and_the_folder_over_the_default(tmp_path: Path) -> None:
    _, first = resolve(tmp_path, {"epochs": 3, "rounds": 4, "seed": 7})
    RunFolder(tmp_path).claim(first)
    RunFolder(tmp_path).study.touch()
    _, second = resolve(tmp_path, {"rounds": 6, "seed": None})
    assert second == replace(first, protocol=replace(first.protocol, rounds=6))


def test_a_command_that_left_nothing_binds_no_other(tmp_path: Path) -> None:
    _, failed = resolve(tmp_path, {"model": "missing.py:make", "train_subset": 8, "rounds": 2})
    RunFolder(tmp_path).claim(failed)
    _, wanted = resolve(tmp_path, {})
    assert wanted == RunDescription(Settings(), MeasurementProtocol())


@pytest.mark.parametrize(
    ("data", "model", "folder"),
    [
        (None, None, "mnist5k-small_cnn"),
        ("cifar10", "resnet18", "cifar10-resnet18"),
        ("imagefolder:/some/where/birds/", None, "imagefolder-birds-small_cnn"),
        (None, "here/nets.py:make", "mnist5k-nets-make"),
    ],
)
def test_a_run_folder_is_named_by_data_and_model(data: str | None, model: str | None, folder: str) -> None:
    path, _ = resolve(None, {"data": data, "model": model})
    assert path == Path("runs") / folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("fine_tune_epochs", 0),
        ("seed", -1),
        ("train_subset", 0),
        ("test_subset", 0),
        ("label_smoothing", 1.0),
        ("threads", 0),
        ("rounds", 1),
        ("precision", 0.0),
        ("time_limit_s", 0.0),
        ("time_limit_s", float("inf")),
        ("time_limit_s", float("nan")),
        ("batch_sizes", (8, 32)),
        ("batch_sizes", (0, 1)),
    ],
)
def test_a_value_out_of_range_names_its_option_and_what_is_allowed(
    tmp_path: Path, name: str, value: float | tuple[int, ...]
) -> None:
    option = "--" + name.removesuffix("_s").replace("_", "-")
    with pytest.raises(SettingsError, match=rf"^{option} .* is out of range\. Allowed: "):
        resolve(tmp_path, {name: value})


def parsed(command: str, *arguments: str) -> dict[str, object]:
    found = app.get_command(click.Context(app), command)
    assert found is not None
    return found.make_context(command, list(arguments)).params


def test_every_setting_is_an_option() -> None:
    declared = {setting.name for kind in (Settings, MeasurementProtocol) for setting in settings_of(kind)}
    assert declared | {"run_dir"} <= parsed("pipeline").keys()
    assert sweep_settings().keys() <= parsed("sweep").keys()


@pytest.mark.parametrize("given", [("1,8",), ("1", "8"), ("1, 8",), ("8,1", "1")])
def test_a_list_is_repeated_or_has_commas(given: tuple[str, ...]) -> None:
    arguments = [part for value in given for part in ("--batch-sizes", value)]
    assert set(parsed("pipeline", *arguments)["batch_sizes"]) == {1, 8}  # type: ignore[call-overload]
    assert parsed("pipeline")["batch_sizes"] is None


@pytest.mark.parametrize(
    ("command", "arguments", "name", "value"),
    [
        ("bench", ("--config", "bf16,fp16"), "configs", ("bf16", "fp16")),
        ("evaluate", ("--config", "bf16", "--config", "fp16"), "configs", ("bf16", "fp16")),
        ("quantize", ("--config", "bf16", "--runtime", "eager,openvino"), "runtimes", ("eager", "openvino")),
        ("multi-bench", ("--model", "small_cnn,edge_cnn"), "models", ("small_cnn", "edge_cnn")),
        ("gate-size", ("file", "--model", "small_cnn,edge_cnn"), "models", ("small_cnn", "edge_cnn")),
        ("sweep", ("--seeds", "1,2"), "seeds", (1, 2)),
        ("sweep", ("--seeds", "1", "2", "--data", "mnist5k"), "seeds", (1, 2)),
        ("sweep", ("--seeds", "1", "--seeds", "2"), "seeds", (1, 2)),
        ("train", ("--mean", "0.5,0.4,0.5"), "mean", (0.5, 0.4, 0.5)),
        ("sweep", ("--memory-budgets-mb", "0.5,10"), "memory_budgets_mb", (0.5, 10.0)),
        ("sweep", ("--no-distill",), "distill", False),
        ("sweep", (), "distill", None),
    ],
)
def test_lists_have_one_form_everywhere_and_earlier_forms_stay(
    command: str, arguments: tuple[str, ...], name: str, value: object
) -> None:
    assert parsed(command, *arguments)[name] == value
