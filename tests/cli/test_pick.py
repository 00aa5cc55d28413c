"""Picks from committed observations, which no test has to measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quant_explorer.cli.console import EXIT_NOTHING_WITHIN
from tests.cli.invoking import Invoke

COMMITTED = Path(__file__).parents[2] / "results" / "cifar10-jpeg"
FOLDER, FILE = str(COMMITTED), str(COMMITTED / "full_results.json")


def test_the_fastest_without_a_loss_is_picked_and_its_tie_named(invoke: Invoke) -> None:
    code, printed = invoke("pick", COMMITTED)
    assert code == 0
    assert "Ship static_int8_per_channel@openvino (the fastest of those within all budgets)." in printed
    assert "Nothing measured separates it from static_int8_per_tensor@openvino." in printed


def test_other_limits_pick_another(invoke: Invoke) -> None:
    limits = ("--max-size-mb", "0.32", "--max-memory-mb", "20", "--runtime", "onnxruntime,executorch")
    code, printed = invoke("pick", COMMITTED, *limits, "--json")
    assert code == 0
    found = json.loads(printed)["small_cnn"]
    assert set(found["within"]) == {
        "static_int8_per_channel@onnxruntime",
        "static_int8_per_tensor@onnxruntime",
        "static_int8_per_tensor@executorch",
    }
    assert found["chosen"] == "static_int8_per_channel@onnxruntime"


def test_a_higher_confidence_leaves_fewer_within(invoke: Invoke) -> None:
    within = [
        len(json.loads(invoke("pick", COMMITTED, "--confidence", level, "--json")[1])["small_cnn"]["within"])
        for level in ("0.6", "0.999")
    ]
    assert within[0] > within[1] > 0


def test_nothing_within_the_limits_has_its_own_exit_code_and_the_nearest(invoke: Invoke) -> None:
    code, printed = invoke("pick", COMMITTED, "--max-latency-ms", "0.1")
    assert code == EXIT_NOTHING_WITHIN
    assert "none of 41 variants. static_int8_per_channel@openvino comes closest: latency: 0.513" in printed
    assert "The limit of latency costs most" in printed


def test_a_folder_without_a_study_is_wrong_use(invoke: Invoke, tmp_path: Path) -> None:
    code, printed = invoke("pick", tmp_path)
    assert code == 2
    assert "there is no study here" in printed


@pytest.mark.parametrize(
    "command",
    [
        ("pick", FOLDER),
        ("compare", FOLDER, FOLDER),
        ("gate", FILE, "--baseline", FILE),
    ],
    ids=lambda command: command[0],
)
def test_commands_that_only_read_import_no_torch_and_no_runtime(command: tuple[str, ...]) -> None:
    program = (
        "import sys; from quant_explorer.cli import app, run_command; "
        f"code = run_command(app, {command!r}); "
        "slow = {'torch', 'onnxruntime', 'openvino', 'matplotlib'}; "
        "print('imported:', *sorted(slow & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: 0"
