from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.core.measurement import Observation
from quant_explorer.report.columns import Table, detail_table, display_names, pareto_table, with_interval
from quant_explorer.stats.intervals import Interval
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.replayed import BASELINE, BROKEN, ORDINARY, of, ranked


def cells_of(table: Table, config: str) -> dict[str, str]:
    (row,) = [row for row in table.rows if row[0] == config]
    return dict(zip(table.headings, row, strict=True))


def test_the_baseline_is_first_then_the_frontier_then_the_others_by_latency(tmp_path: Path) -> None:
    played = (
        BASELINE,
        Played("beaten", 0.9, wrong=70, size_bytes=900_000),
        Played("beaten_sooner", 0.8, wrong=70, size_bytes=900_000),
        Played("small", 0.7, wrong=60, size_bytes=100_000),
        Played("fast", 0.5, wrong=60, size_bytes=800_000),
    )
    table = pareto_table(ranked(tmp_path, played), "small_cnn")
    order = [row[0] for row in table.rows]
    assert order == ["fp32_baseline", "fast", "small", "beaten_sooner", "beaten"]


def test_the_columns_are_those_of_the_report(tmp_path: Path) -> None:
    table = pareto_table(ranked(tmp_path, (*ORDINARY, Played("close", 0.9, wrong=41), BROKEN)), "small_cnn")
    assert table.headings == (
        "config",
        "size_kb",
        "size_ratio",
        "p50_lat_ms_b1",
        "latency_speedup",
        "speedup_same_runtime",
        "top1_acc",
        "acc_diff_pp",
        "margin_0.5_pp",
        "mem_peak_mb",
        "pareto_optimal",
    )
    assert {row[0] for row in table.rows} == {*(variant.config for variant in ORDINARY), "close"}
    cells = cells_of(table, ORDINARY[2].config)
    assert cells["size_kb"] == "250.0"
    assert cells["size_ratio"] == "0.250"
    assert cells["p50_lat_ms_b1"].startswith("0.251 [0.25")
    assert cells["latency_speedup"].startswith("4.00 [")
    assert cells["top1_acc"] == "80.00 [75.80, 83.63]"
    assert cells["acc_diff_pp"].startswith("-10.00 [")
    assert cells["acc_diff_pp"].endswith("] loss")
    assert cells["margin_0.5_pp"] == "worse"
    assert re.fullmatch(r"not shown \([\d,]+ images more\)", cells_of(table, "close")["margin_0.5_pp"])
    assert cells_of(table, BASELINE.config)["margin_0.5_pp"] == "within"
    assert cells["mem_peak_mb"] == "50.0"
    assert cells["pareto_optimal"] == "yes (1.00)"


def test_an_untrained_model_says_agreement(tmp_path: Path) -> None:
    headings = pareto_table(ranked(tmp_path, ORDINARY, Scene(trained=False)), "small_cnn").headings
    assert "top1_agreement_with_fp32" in headings
    assert "sqnr_db" in headings
    assert "top1_acc" not in headings


def test_images_are_a_column_only_where_they_differ(tmp_path: Path) -> None:
    table = pareto_table(ranked(tmp_path, (*ORDINARY, Played("slow", images=100))), "small_cnn")
    images = {row[0]: row[table.headings.index("images")] for row in table.rows}
    assert images == {variant.config: "400" for variant in ORDINARY} | {"slow": "100"}


def test_missing_figures_are_not_numbers(tmp_path: Path) -> None:
    odd = Played("odd", latency=False, memory_bytes=None)
    table = pareto_table(ranked(tmp_path, (*ORDINARY, odd)), "small_cnn")
    cells = dict(zip(table.headings, table.rows[-1], strict=True))
    for name in ("p50_lat_ms_b1", "latency_speedup", "mem_peak_mb"):
        assert cells[name] == "n/a"
    assert cells["pareto_optimal"] == "not ranked"


def test_the_second_table_has_the_other_batch_sizes(tmp_path: Path) -> None:
    cells = cells_of(detail_table(ranked(tmp_path, ORDINARY), "small_cnn"), ORDINARY[2].config)
    assert cells["p50_lat_ms_b8"].startswith("2.00")
    assert cells["mem_peak_mb_b8"] == "400.0"
    assert cells["int8_mac_fraction"] == "0.990"
    assert "p50_lat_ms_b1" not in cells


def test_a_metric_has_a_column_with_the_median_and_its_interval(tmp_path: Path) -> None:
    played = (
        replace(BASELINE, observations=(Observation("heat", "c", (4.0, 2.0, 3.0)),)),
        replace(ORDINARY[1], observations=(Observation("heat", "c", (-1.5,)),)),
        replace(ORDINARY[2], observations=(Observation("heat", "c", reason="no thermometer"),)),
        ORDINARY[3],
    )
    results = ranked(tmp_path, played)
    table = detail_table(results, "small_cnn")
    cells = {variant.config: cells_of(table, variant.config)["heat_c"] for variant in played}
    assert cells.pop("fp32_baseline").startswith("3 [")
    assert cells == {
        "dynamic_int8": "-1.5",
        "static_int8_per_tensor": "n/a",
        "static_int8_per_channel": "n/a",
    }
    assert of(results, "static_int8_per_tensor").metrics["heat"].reasons["value"] == "no thermometer"


def test_the_ranked_batch_size_is_in_the_heading(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    assert "p50_lat_ms_b1" in pareto_table(results, "small_cnn").headings
    assert results.objectives[1].name == "latency_p50_s_b1"


def test_runtimes_are_named_where_the_config_alone_is_not_clear(tmp_path: Path) -> None:
    results = ranked(tmp_path, (BASELINE, Played("fp32_baseline", runtime="served")))
    assert display_names(results.variants) == {
        "fp32_baseline@eager": "fp32_baseline@eager",
        "fp32_baseline@served": "fp32_baseline@served",
    }
    assert display_names(results.variants[:1]) == {"fp32_baseline@eager": "fp32_baseline"}


@pytest.mark.parametrize(
    ("interval", "expected"), [(Interval(0.229, 0.234), "0.231 [0.229, 0.234]"), (None, "0.231")]
)
def test_interval_format(interval: Interval | None, expected: str) -> None:
    assert with_interval(0.231, interval, "{:.3f}".format) == expected


def test_a_difference_that_is_not_zero_is_not_printed_as_zero(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    accuracy = results.variants[1].accuracy
    assert accuracy is not None
    tiny = replace(results.variants[1], accuracy=replace(accuracy, diff_pp=-0.001))
    table = pareto_table(replace(results, variants=(tiny,)), "small_cnn")
    assert table.rows[0][table.headings.index("acc_diff_pp")].startswith("-0.001 [")
