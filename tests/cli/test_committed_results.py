"""The committed results are what the committed observations give, by the command that anyone can run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quant_explorer.cli.app import app
from quant_explorer.cli.console import run_command

COMMITTED = Path(__file__).parents[2] / "results" / "cifar10-jpeg"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pareto.md", "multi_pareto.md"])
def test_a_report_of_the_observations_is_the_committed_one(tmp_path: Path, name: str) -> None:
    source = COMMITTED / ("multi" if name.startswith("multi") else "")
    for file in ("run.json", "study.jsonl"):
        shutil.copy(source / file, tmp_path / file)
    assert run_command(app, ["report", "--run-dir", str(tmp_path)]) == 0
    assert (tmp_path / "report" / name).read_text() == (COMMITTED / name).read_text()
