"""The committed results are what the committed observations give, by the command that anyone can run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quant_explorer.cli.app import app
from quant_explorer.cli.console import run_command
from quant_explorer.report.render import load_results

RESULTS = Path(__file__).parents[2] / "results"
COMMITTED = RESULTS / "cifar10-jpeg"
SWEPT = RESULTS / "cifar10-sweep"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pareto.md", "multi_pareto.md"])
def test_a_report_of_the_observations_is_the_committed_one(tmp_path: Path, name: str) -> None:
    source = COMMITTED / ("multi" if name.startswith("multi") else "")
    for file in ("run.json", "study.jsonl"):
        shutil.copy(source / file, tmp_path / file)
    assert run_command(app, ["report", "--run-dir", str(tmp_path)]) == 0
    assert (tmp_path / "report" / name).read_text() == (COMMITTED / name).read_text()
    document = "multi_results.json" if name.startswith("multi") else "full_results.json"
    again, committed = (load_results(folder / document) for folder in (tmp_path / "report", COMMITTED))
    assert (again.variants, again.aa, again.run.settings) == (
        committed.variants,
        committed.aa,
        committed.run.settings,
    )


@pytest.mark.slow
def test_the_tables_of_a_sweep_s_observations_are_the_committed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    shutil.copytree(SWEPT, tmp_path / "results" / SWEPT.name)
    again = tmp_path / "results" / SWEPT.name
    committed = {path.name: path.read_text() for path in SWEPT.glob("*.csv")}
    summary = (SWEPT / "summary.json").read_text()
    for path in [*again.glob("*.csv"), again / "summary.json"]:
        path.unlink()
    assert run_command(app, ["sweep", "--config", f"results/{SWEPT.name}/sweep.yaml", "--report-only"]) == 0
    assert {path.name: path.read_text() for path in again.glob("*.csv")} == committed
    assert (again / "summary.json").read_text() == summary
