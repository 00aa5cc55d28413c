"""Picks from recorded observations with a known truth, which no test has to measure."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quant_explorer.cli.console import EXIT_NOTHING_WITHIN
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BASELINE
from tests.cli.invoking import Invoke

COMMITTED = Path(__file__).parents[2] / "results" / "cifar10-jpeg"
FOLDER, FILE = str(COMMITTED), str(COMMITTED / "full_results.json")


# The first two are fast and lose nothing; the third is the fastest and loses 10 points.
PLAYED = (
    BASELINE,
    Played("static_int8_per_channel", slowness=0.4, wrong=41, size_bytes=260_000),
    Played("static_int8_per_tensor", slowness=0.4, wrong=41, size_bytes=250_000, memory_bytes=70_000_000),
    Played("dynamic_int8", slowness=0.3, wrong=80, size_bytes=255_000),
    Played("fp16", slowness=0.8, wrong=40, size_bytes=500_000),
)
SCENE = Scene(images=2_000)
TIED = ("static_int8_per_channel@eager", "static_int8_per_tensor@eager")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    play(tmp_path / "recorded" / "study.jsonl", PLAYED, SCENE)
    return tmp_path / "recorded"


def test_the_fastest_without_a_loss_is_picked_and_its_tie_named(invoke: Invoke, recorded: Path) -> None:
    code, printed = invoke("pick", recorded)
    assert code == 0
    assert re.findall(r"Ship (\S+) \(the fastest of those within all budgets\)", printed) == [TIED[0]]
    assert f"Nothing measured separates it from {TIED[1]}." in printed


def test_other_limits_pick_another(invoke: Invoke, recorded: Path) -> None:
    limits = ("--max-size-mb", "0.3", "--max-memory-mb", "60", "--max-drop-pp", "5")
    code, printed = invoke("pick", recorded, *limits, "--json")
    assert code == 0
    found = json.loads(printed)["small_cnn"]
    assert set(found["within"]) == {"static_int8_per_channel@eager", "dynamic_int8@eager"}
    assert found["chosen"] == "dynamic_int8@eager"


def test_a_higher_confidence_leaves_fewer_within(invoke: Invoke, recorded: Path) -> None:
    within = []
    for level in ("0.6", "0.999"):
        limits = ("--confidence", level, "--max-drop-pp", "0.1")
        _, printed = invoke("pick", recorded, *limits, "--json")
        within.append(set(json.loads(printed)["small_cnn"]["within"]))
    assert within[0] > within[1]


def test_nothing_within_the_limits_has_its_own_exit_code_and_the_nearest(
    invoke: Invoke, recorded: Path
) -> None:
    code, printed = invoke("pick", recorded, "--max-latency-ms", "0.1")
    assert code == EXIT_NOTHING_WITHIN
    assert "none of 5 variants. static_int8_per_tensor@eager comes closest: latency: 0.4" in printed
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
