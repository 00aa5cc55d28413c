from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from quant_explorer.analysis.decide.search_split import SearchSplit
from quant_explorer.analysis.sweep.rows import Machine, SweepRow, sweep_rows
from quant_explorer.core.measurement import EnergyBlock, Status
from tests.analysis.sweep.swept import FULL, GRID, HALF, PEAKS, PLAN, RUN, swept


def rows(folder: Path, **changes: object) -> dict[str, SweepRow]:
    plan = dataclasses.replace(PLAN, **changes)  # type: ignore[arg-type]
    return {row.config: row for row in swept(folder, plan=plan).rows}


def test_a_row_says_where_in_the_grid_it_is(tmp_path: Path) -> None:
    found = rows(tmp_path)
    assert [(row.pruning, row.precision) for row in found.values()] == [
        *((0.0, "fp32"), (0.0, "int8"), (0.5, "fp32"), (0.5, "int8"), (None, None))
    ]
    assert {row.seed for row in found.values()} == {0}


def test_what_pruning_reached_stands_beside_what_was_asked(tmp_path: Path) -> None:
    found = rows(tmp_path)
    pruned = found["pruned50_int8"]
    assert (pruned.macs, pruned.parameters) == (500, 80)
    assert (pruned.pruning, pruned.channels_removed) == (0.5, 0.5)
    assert (pruned.parameters_removed, pruned.macs_removed) == (0.5, 0.5)
    assert (found["int8"].channels_removed, found["int8"].macs_removed) == (None, 0.0)


def test_the_roof_is_that_of_the_precision_that_ran(tmp_path: Path) -> None:
    found = rows(tmp_path)["int8"]
    assert found.latency_p50_s is not None
    # 1,000 MAC in INT8: a byte for each of 160 parameters and of 2 x (192 + 256) elements.
    assert found.gmacs_per_s == pytest.approx(1000 / found.latency_p50_s / 1e9)
    assert found.roof_gmacs_per_s == pytest.approx(min(400.0, 10.0 * 1000 / (160 + 2 * 448)))
    assert found.roof_share == pytest.approx((found.gmacs_per_s or 0) / (found.roof_gmacs_per_s or 1))
    assert found.bound == "memory"


def test_a_given_roof_stands_for_the_measured_one(tmp_path: Path) -> None:
    given = rows(tmp_path, gb_per_s=1e6, gmacs_per_s=7.0)["int8"]
    assert (given.roof_gmacs_per_s, given.bound) == (7.0, "compute")


def test_live_activations_are_in_the_precision_that_ran(tmp_path: Path) -> None:
    found = rows(tmp_path)
    assert found["fp32_baseline"].live_activation_bytes_estimate == 448 * 4
    assert found["int8"].live_activation_bytes_estimate == 448
    assert found["pruned50_int8"].live_activation_bytes_estimate == 320


def test_a_slower_clock_is_an_estimate_beside_what_was_measured(tmp_path: Path) -> None:
    plain, slower = rows(tmp_path / "a"), rows(tmp_path / "b", frequency_scale=0.5)
    assert plain["int8"].slower_clock_latency_s_estimate is None
    before, after = plain["int8"].latency_p50_s, slower["int8"].slower_clock_latency_s_upper_estimate
    assert before is not None
    assert after == pytest.approx(2 * before)
    assert slower["int8"].latency_p50_s == before


def test_the_energy_proxy_is_power_times_latency_and_needs_a_power(tmp_path: Path) -> None:
    assert rows(tmp_path / "a")["int8"].energy_proxy_j is None
    found = rows(tmp_path / "b", power_watts=15.0)["int8"]
    assert found.latency_p50_s is not None
    assert found.energy_proxy_j == pytest.approx(15 * found.latency_p50_s)
    assert found.energy_j is None


def test_measured_energy_leaves_no_room_for_a_proxy(tmp_path: Path) -> None:
    found = swept(tmp_path)
    plan = dataclasses.replace(PLAN, power_watts=15.0)
    (variant,) = [variant for variant in found.results.variants if variant.config == "int8"]
    blocks = tuple(EnergyBlock(10, 0.5, joules) for joules in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    machine = Machine({variant.digest: FULL, "other": HALF}, PEAKS.peaks, {variant.digest: blocks})
    (row,) = sweep_rows(0, [variant], RUN.ranked_batch, RUN.largest_batch, machine, plan, SearchSplit({}))
    assert row.energy_j == pytest.approx(0.35)
    assert row.energy_low_j is not None
    assert row.energy_high_j is not None
    assert row.energy_low_j < 0.35 < row.energy_high_j
    assert row.energy_proxy_j is None


def test_without_an_inspection_there_is_no_roof_and_no_guess(tmp_path: Path) -> None:
    (row,) = [row for row in swept(tmp_path, inspected=False).rows if row.config == "int8"]
    assert row.latency_p50_s is not None
    assert (row.macs, row.gmacs_per_s, row.roof_share, row.live_activation_bytes_estimate) == (None,) * 4


def test_a_failed_variant_keeps_its_row_and_its_reason(tmp_path: Path) -> None:
    broken = [dataclasses.replace(GRID[1], status=Status.DIED, reason="killed by signal 9"), *GRID[2:]]
    (row,) = [row for row in swept(tmp_path, [GRID[0], *broken]).rows if row.config == "int8"]
    assert (row.status, row.reason) == ("died", "killed by signal 9")
    assert (row.top1, row.latency_p50_s, row.size_bytes, row.gmacs_per_s) == (None,) * 4
