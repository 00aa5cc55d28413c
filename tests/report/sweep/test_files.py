from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from quant_explorer.analysis.rank import summarize
from quant_explorer.core.errors import StorageError, StudyError
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import Budgets, Reproducibility, SweepPlan
from quant_explorer.report.sweep import files as sweep
from quant_explorer.report.sweep.files import SeedFindings, SweepSummary, examine_seed, write_sweep
from quant_explorer.report.sweep.text import describe_sweep
from quant_explorer.testing.replay import Scene, environment, measurement, play
from tests.analysis.sweep.swept import GRID, PLAN, RUN, swept

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


def write(folder: Path, *seeds: SeedFindings, plan: SweepPlan = PLAN) -> SweepSummary:
    return write_sweep(seeds, plan, REPRODUCIBILITY, folder / "out", draws=50)


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
    told = json.loads((tmp_path / "out" / "sweep_results.json").read_text())
    assert [row["config"] for row in rows] == [row["config"] for row in told] == [one.config for one in GRID]
    assert rows[0].keys() == told[0].keys()
    assert float(rows[1]["top1"]) == told[1]["top1"] == pytest.approx(0.89)
    assert rows[1]["reason"] == ""
    assert told[1]["reason"] is None


def test_the_frontier_file_holds_what_nothing_beats(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path))
    rows = table(tmp_path, "sweep_results.csv")
    best = {row["config"] for row in table(tmp_path, "pareto_frontier_latency.csv")}
    assert best == {row["config"] for row in rows if row["on_frontier"] == "True"}
    assert "pruned50_int8" in best
    assert "pruned50_fp32" not in best


def test_a_variant_that_died_while_it_was_timed_has_no_figures(tmp_path: Path) -> None:
    """Its rounds and outputs until then are in the study, and it would be the best of all."""
    study = play(tmp_path / "study-0.jsonl", GRID)
    died = dataclasses.replace(measurement(GRID[3], Scene()), status=Status.DIED, reason="killed by signal 9")
    study.append(died)
    (results,) = summarize(study, RUN, draws=200)
    found = examine_seed(0, study, results, PLAN)
    write(tmp_path, found)
    assert "pruned50_int8" not in {one["config"] for one in table(tmp_path, "pareto_frontier_latency.csv")}
    (row,) = [one for one in table(tmp_path, "sweep_results.csv") if one["config"] == "pruned50_int8"]
    figures = (
        "top1",
        "diff_pp",
        "latency_p50_s",
        "speedup",
        "peak_memory_bytes",
        "cold_start_s",
        "on_frontier",
    )
    assert {name: row[name] for name in figures} == dict.fromkeys(figures, "")
    assert (row["status"], row["size_bytes"]) == ("died", "80000")
    (seeds,) = [one for one in table(tmp_path, "summary_multi_seed.csv") if one["config"] == "pruned50_int8"]
    assert (seeds["seeds"], seeds["top1_mean"], seeds["latency_p50_s_mean"]) == ("0", "", "")
    (variant,) = [one for one in results.variants if one.config == "pruned50_int8"]
    assert set(variant.latency["1"].reasons.values()) == {"it died: killed by signal 9"}


def test_seeds_of_different_machines_are_never_in_one_table(tmp_path: Path) -> None:
    here, there = swept(tmp_path), swept(tmp_path, seed=1, scene=Scene(environment="env-b"))
    reason = r"seed 1 was measured in another environment than seed 0 \(CPU CPU of env-b there, CPU of env-a"
    with pytest.raises(StudyError, match=reason):
        write(tmp_path, here, there)
    assert not (tmp_path / "out").exists()


def test_energy_has_a_frontier_of_its_own_only_where_it_was_measured(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, power_watts=15.0)
    found = swept(tmp_path, plan=plan)
    write(tmp_path, found, plan=plan)
    assert not (tmp_path / "out" / "pareto_frontier_energy.csv").exists()
    measured = dataclasses.replace(
        found, rows=tuple(dataclasses.replace(row, energy_j=1e-3 * n) for n, row in enumerate(found.rows, 1))
    )
    write(tmp_path, measured)
    # With this energy the baseline needs least.
    best = {row["config"] for row in table(tmp_path, "pareto_frontier_energy.csv")}
    assert "fp32_baseline" in best
    assert "pruned50_fp32" not in best


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


def test_the_hardware_has_a_row_a_precision_and_a_reason_for_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path))
    rows = {row["precision"]: row for row in table(tmp_path, "hardware_summary.csv")}
    assert rows["fp32"]["peak_gmacs_per_s"] == "100.0"
    assert (rows["fp16"]["peak_gmacs_per_s"], rows["fp16"]["reason"]) == ("", "no kernel")


def test_failures_are_listed_with_their_reasons(tmp_path: Path) -> None:
    broken = dataclasses.replace(GRID[1], status=Status.UNSUPPORTED, reason="no such kernel, on this CPU")
    summary = write(tmp_path, swept(tmp_path, [GRID[0], broken, *GRID[2:]]))
    assert table(tmp_path, "sweep_errors.csv") == [
        {
            "seed": "0",
            "config": "int8",
            "runtime": "eager",
            "status": "unsupported",
            "reason": "no such kernel, on this CPU",
        }
    ]
    assert (summary.measured, summary.unsupported, summary.failed) == (4, 1, 0)


def test_when_everything_failed_the_files_say_so(tmp_path: Path) -> None:
    broken = [dataclasses.replace(one, status=Status.DIED, reason="killed") for one in GRID]
    found = swept(tmp_path, broken)
    summary = write(tmp_path, found)
    assert (summary.measured, summary.failed, summary.deployments) == (0, 5, ())
    told = list(describe_sweep(summary, [found]))
    assert "0 of 5 variants measured, 0 not possible, 5 failed" in told[0]
    assert "nothing was measured in every seed" in told[1]


def test_what_is_picked_is_described_as_it_would_serve(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, budgets=(Budgets(accuracy_drop_pp=1.5, use_ci=False),))
    found = swept(tmp_path, plan=plan)
    summary = write(tmp_path, found, plan=plan)
    (deployment,) = summary.deployments
    assert deployment.name == "int8@eager"
    assert deployment.cold_start_s == 0.2
    assert deployment.size_bytes == 250_000
    assert [(one.threads, one.batch_size) for one in deployment.throughput] == [(1, 1), (1, 8)]
    single = deployment.single_image_s
    assert list(single)[:4] == ["p5", "p25", "p50", "p75"]
    assert single["p5"] <= single["p25"] <= single["p50"] <= single["p75"]
    assert deployment.throughput[1].images_per_s == pytest.approx(8 / deployment.throughput[1].p50_s)
    told = " ".join(describe_sweep(summary, [found]))
    assert "Ship int8@eager (the fastest of those within all budgets)" in told
    assert "on 1 core" in told


def test_the_control_tells_how_much_is_training(tmp_path: Path) -> None:
    summary = write(tmp_path, swept(tmp_path))
    assert "changes top-1 by +1.00 pp" in summary.control
    without = write(tmp_path, swept(tmp_path / "b", GRID[:4]))
    assert without.control == "nothing was fine-tuned"


def test_two_seeds_are_in_one_table(tmp_path: Path) -> None:
    write(tmp_path, swept(tmp_path, seed=0), swept(tmp_path, seed=1))
    assert [row["seed"] for row in table(tmp_path, "sweep_results.csv")] == ["0"] * 5 + ["1"] * 5
    assert {row["seeds"] for row in table(tmp_path, "summary_multi_seed.csv")} == {"2"}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path, swept(tmp_path))
