"""A run whose process is killed at every stage is, when it has been resumed, what an undisturbed run is."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from pathlib import Path

import msgspec
import pytest

from quant_explorer.core.measurement import Measurement, Round
from quant_explorer.core.study import StudyFile
from tests.datasets.image_trees import two_classes
from tests.faults import killed
from tests.faults.processes import MARK, PATIENCE_S, nothing_left

MODEL = """
from torch import nn

def make(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, num_classes))
"""
CONFIGS = ("fp32_baseline", "static_int8_per_tensor")
WORDS = (
    *("pipeline", "--run-dir", "run", "--data", "imagefolder:images", "--model", "mine.py:make"),
    *("--runtime", "eager", "--epochs", "3", "--batch-size", "8", "--batch-sizes", "1"),
    *("--rounds", "2", "--time-limit", "0.1", *(word for config in CONFIGS for word in ("--config", config))),
)


def run(folder: Path, stage: str | None = None) -> int | None:
    """Run the command in a process of its own, and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([killed.__name__, "torch", "quant_explorer.cli.job"])
    with nothing_left() as mark:
        environment = {"XDG_CACHE_HOME": str(folder / "cache"), MARK: mark}
        process = context.Process(
            target=killed.run_command_until, args=(stage, list(WORDS), folder, environment)
        )
        process.start()
        process.join(PATIENCE_S)
    return process.exitcode


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Path]:
    """Two working directories with the same images and the same model."""
    folders = (tmp_path / "undisturbed", tmp_path / "disturbed")
    images = two_classes(tmp_path / "images", train=24, test=8)
    for folder in folders:
        folder.mkdir()
        (folder / "mine.py").write_text(MODEL)
        (folder / "images").symlink_to(images)
    return folders


def hashes(run: Path, *folders: str) -> dict[str, str]:
    """SHA-256 of all files below `folders` by their path."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted((run / folder).rglob("*"))
        if path.is_file()
    }


def found(study: StudyFile) -> list[object]:
    """What was found of each variant, apart from durations, memory and the process."""
    return [
        (record.variant, record.status, record.reason, record.files, record.executed, record.predictions)
        for record in study.records
        if isinstance(record, Measurement)
    ]


@pytest.mark.slow
def test_a_run_that_is_killed_at_every_stage_equals_an_undisturbed_one(prepared: tuple[Path, Path]) -> None:
    undisturbed, disturbed = prepared
    assert run(undisturbed) == 0, (undisturbed / "printed.txt").read_text()
    file = disturbed / "run" / "study.jsonl"
    kept: list[object] = []
    for stage in killed.STAGES:
        code = run(disturbed, stage)
        assert code == -signal.SIGKILL, (stage, (disturbed / "printed.txt").read_text())
        records = StudyFile.load(file).records
        assert records[: len(kept)] == kept, stage
        kept = list(records)
    assert run(disturbed) == 0, (disturbed / "printed.txt").read_text()
    expected, resumed = StudyFile.load(undisturbed / "run" / "study.jsonl"), StudyFile.load(file)
    assert resumed.records[: len(kept)] == kept
    assert found(resumed) == found(expected)
    parts = ("weights", "artifacts", "outputs")
    assert hashes(disturbed / "run", *parts) == hashes(undisturbed / "run", *parts)
    numbers = [record.number for record in resumed.records if isinstance(record, Round)]
    assert numbers == [0, 1]
    names = {path.name for path in (undisturbed / "run" / "report").iterdir()}
    assert {path.name for path in (disturbed / "run" / "report").iterdir()} == names
    assert msgspec.json.decode((disturbed / "run" / "run.json").read_bytes())
    assert not list((disturbed / "cache").rglob("*.part"))
