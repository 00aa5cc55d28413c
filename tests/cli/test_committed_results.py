"""The committed results are what the committed observations give, by the command that anyone can run."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from msgspec import to_builtins

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
    assert (tmp_path / "report" / "index.html").stat().st_size < 6_000_000
    document = "multi_results.json" if name.startswith("multi") else "full_results.json"
    again, committed = (load_results(folder / document) for folder in (tmp_path / "report", COMMITTED))
    assert_alike(to_builtins(again.variants), to_builtins(committed.variants))
    assert_alike(to_builtins(again.aa), to_builtins(committed.aa))
    assert again.run.settings == committed.run.settings


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
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
    assert {path.name for path in again.glob("*.csv")} == committed.keys()
    page = (again / "index.html").read_text()
    assert page.count("Within the budgets of the sweep") == 1  # Those on more threads were held against none.
    assert page.count('role="tabpanel"') == 2
    for name, text in committed.items():
        assert_alike(list(csv.reader((again / name).open())), list(csv.reader(text.splitlines())))
    assert_alike(json.loads((again / "summary.json").read_bytes()), json.loads(summary))


def assert_alike(found: object, expected: object) -> None:
    """Equal but for the last digits of figures: logarithms differ in them from CPU to CPU."""
    if isinstance(found, dict) and isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in found.items():
            assert_alike(value, expected[key])
    elif isinstance(found, list) and isinstance(expected, list):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_alike(ours, theirs)
    elif is_figure(found) and is_figure(expected):
        assert float(str(found)) == pytest.approx(float(str(expected)), rel=1e-9, abs=0)
    else:
        assert found == expected


def is_figure(value: object) -> bool:
    text = value if isinstance(value, str) else ""
    return isinstance(value, float) or bool(re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text))
