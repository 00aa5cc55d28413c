from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from quant_explorer.analysis.sweep.findings import SeedFindings
from quant_explorer.analysis.sweep.tables import tabulate_sweep
from quant_explorer.core.errors import StorageError
from quant_explorer.core.settings.plan import Reproducibility, SweepPlan
from quant_explorer.report.sweep import files as sweep
from quant_explorer.report.sweep.files import write_sweep
from quant_explorer.testing.replay import environment
from tests.analysis.sweep.swept import GRID, PLAN, swept

TABLES = {
    *("sweep_results.csv", "sweep_results.json", "pareto_frontier_latency.csv", "layerwise_breakdown.csv"),
    *("precision_tradeoffs.csv", "hardware_summary.csv", "sweep_errors.csv", "summary.json"),
    *("summary_multi_seed.json", "summary_multi_seed.csv", "reproducibility.json"),
}
PLOTS = {
    f"{name}.{kind}"
    for name in ("accuracy_vs_latency", "accuracy_vs_memory", "roofline", "layer_macs", "layer_activations")
    for kind in ("png", "svg")
}
REPRODUCIBILITY = Reproducibility(
    ("quant-explorer", "sweep"),
    "0.1.0",
    "abc",
    False,
    environment("env-a"),
    (0,),
    ("d",),
    (),
    {"torch": "2.14"},
)


@pytest.fixture(autouse=True)
def _without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take seconds and have tests of their own; two tests here look at them too."""
    if "plots" not in request.node.name:
        monkeypatch.setattr(sweep, "draw_sweep", lambda rows, layers, peaks: {})


def write(folder: Path, *seeds: SeedFindings, plan: SweepPlan = PLAN) -> None:
    write_sweep(tabulate_sweep(seeds, plan, draws=50), REPRODUCIBILITY, folder / "out")


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "out" / name).open() as stream:
        return list(csv.DictReader(stream))


def test_every_output_is_there_plots_included_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path))
    assert {path.name for path in (tmp_path / "out").iterdir()} == TABLES | PLOTS


def test_the_same_study_gives_the_same_bytes_plots_included(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path / "a"))
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write(tmp_path, swept(tmp_path / "b"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first


def test_csv_and_json_hold_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path))
    rows = table(tmp_path, "sweep_results.csv")
    listed = json.loads((tmp_path / "out" / "sweep_results.json").read_text())
    assert (
        [row["config"] for row in rows]
        == [row["config"] for row in listed]
        == [variant.config for variant in GRID]
    )
    assert rows[0].keys() == listed[0].keys()
    assert float(rows[1]["top1"]) == listed[1]["top1"] == pytest.approx(0.89)
    assert rows[1]["reason"] == ""
    assert listed[1]["reason"] is None


def test_the_frontier_file_holds_what_nothing_beats(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path))
    rows = table(tmp_path, "sweep_results.csv")
    best = {row["config"] for row in table(tmp_path, "pareto_frontier_latency.csv")}
    assert best == {row["config"] for row in rows if row["on_frontier"] == "True"}
    assert "pruned50_int8" in best
    assert "pruned50_fp32" not in best


def test_the_energy_frontier_is_a_file_only_where_energy_was_measured(tmp_path: Path) -> None:
    found = swept(tmp_path)
    write(tmp_path, found)
    assert not (tmp_path / "out" / "pareto_frontier_energy.csv").exists()
    rows = [dataclasses.replace(row, energy_j=1e-3 * number) for number, row in enumerate(found.rows, 1)]
    write(tmp_path, dataclasses.replace(found, rows=tuple(rows)))
    assert "fp32_baseline" in {row["config"] for row in table(tmp_path, "pareto_frontier_energy.csv")}


def test_layers_are_given_for_each_level_and_precision(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path))
    rows = table(tmp_path, "layerwise_breakdown.csv")
    assert [(row["pruning"], row["precision"], row["layer"], row["macs"]) for row in rows] == [
        *(("0.0", "fp32", "conv", "900"), ("0.0", "fp32", "fc", "100")),
        *(("0.0", "int8", "conv", "900"), ("0.0", "int8", "fc", "100")),
        *(("0.5", "fp32", "conv", "450"), ("0.5", "fp32", "fc", "50")),
        *(("0.5", "int8", "conv", "450"), ("0.5", "int8", "fc", "50")),
    ]
    assert [row["weight_bytes"] for row in rows[:4]] == ["400", "240", "100", "60"]
    assert rows[0]["input_shape"] == "1x3x8x8"


def test_two_seeds_are_in_one_table(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path, seed=0), swept(tmp_path, seed=1))
    assert [row["seed"] for row in table(tmp_path, "sweep_results.csv")] == ["0"] * 5 + ["1"] * 5
    assert {row["seeds"] for row in table(tmp_path, "summary_multi_seed.csv")} == {"2"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path, swept(tmp_path))
