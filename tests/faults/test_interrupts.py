"""Ctrl-C in every stage of one run, by real signals; it is then finished as if nothing had been."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from quant_explorer.core.measurement import Measurement, Round, Status
from quant_explorer.core.study import StudyFile
from tests.cli.invoking import EAGER, Invoke, Place, Running

pytestmark = pytest.mark.slow

# Slow enough that every stage can be met. While there is a file of that name, it presses Ctrl-C itself
# in the second epoch.
MODEL = """
import os, signal
from pathlib import Path
from torch import nn

def press(module, inputs):
    asked = Path("interrupt-training").exists() and list(Path("run/weights").glob("*.checkpoint"))
    if asked and module.training:
        os.kill(os.getpid(), signal.SIGINT)

def make(num_classes):
    model = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes),
    )
    model.register_forward_pre_hook(press)
    return model
"""
RUN = (
    *("pipeline", *EAGER, "--run-dir", "run", "--model", "mine.py:make", "--config", "fp32_baseline"),
    *(
        "--train-subset",
        "100",
        "--test-subset",
        "600",
        "--epochs",
        "2",
        "--batch-sizes",
        "1",
        "--rounds",
        "2",
    ),
)
ENDLESS = ("--precision", "0.000001", "--time-limit", "100000")


def records(run: Path) -> StudyFile:
    return StudyFile.load(run / "study.jsonl")


def rounds(run: Path) -> list[int]:
    return [record.number for record in records(run).records if isinstance(record, Round)]


def is_scoring(running: Running) -> bool:
    """Whether the bar of scoring is under way."""
    return bool(re.search(r"score fp32_baseline@eager\s+\S+\s+[1-9]\d*/600", running.output))


def names_interruption(text: str) -> bool:
    kept = "interrupted; what was recorded is kept, and the same command goes on from there"
    return kept in " ".join(text.split()) and "Traceback" not in text


def test_a_run_that_is_interrupted_everywhere_loses_nothing(place: Place, invoke: Invoke) -> None:
    run = place.folder / "run"
    (place.folder / "mine.py").write_text(MODEL)

    (place.folder / "interrupt-training").touch()
    done = place.call(*RUN)
    assert done.returncode == 130
    assert names_interruption(done.stderr)
    (checkpoint,) = (run / "weights").iterdir()
    assert checkpoint.suffix == ".checkpoint"
    (place.folder / "interrupt-training").unlink()

    with place.start(*RUN, *ENDLESS) as running:
        running.wait_until(lambda: is_scoring(running))
        assert running.send(signal.SIGINT) == 130
        assert names_interruption(running.output)
    # It had gone on from the checkpoint, and trained to the end.
    assert "epoch 1/2" not in running.output
    (weights,) = (run / "weights").glob("*.safetensors")
    trained = (weights.stat().st_mtime_ns, weights.read_bytes())
    scored = records(run)
    assert not [record for record in scored.records if isinstance(record, Measurement)]

    with place.start(*RUN, *ENDLESS) as running:
        running.wait_until(lambda: len(rounds(run)) >= 1)
        code, printed = invoke(*RUN)
        assert code == 3
        assert "run is in use by another quant-explorer process" in printed
        assert "Traceback" not in printed
        assert running.send(signal.SIGINT) == 130
        assert names_interruption(running.output)
    timed = records(run)
    assert timed.records[: len(scored.records)] == scored.records

    code, printed = invoke(*RUN, "--time-limit", "0.1")
    assert code == 0, printed
    assert "score" not in printed
    whole = records(run)
    assert whole.records[: len(timed.records)] == timed.records
    assert rounds(run) == list(range(len(rounds(run))))
    (measurement,) = (record for record in whole.records if isinstance(record, Measurement))
    assert measurement.status is Status.OK
    (end,) = whole.timing_ends(measurement.environment)
    assert end.stopped_by == "time_limit"
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == trained
    assert (run / "report" / "pareto.md").is_file()
