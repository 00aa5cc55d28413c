from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from quant_explorer.analysis.sweep.findings import SeedFindings
from quant_explorer.analysis.sweep.seeds import probability_over_seeds, summarize_seeds
from quant_explorer.core.measurement import Status
from tests.analysis.sweep.swept import GRID, swept


def seeds(folder: Path, *wrong: int) -> list[SeedFindings]:
    """One seed for each number of images that INT8 gets wrong."""
    return [
        swept(
            folder,
            [
                dataclasses.replace(variant, wrong=count if variant.config == "int8" else variant.wrong)
                for variant in GRID
            ],
            seed=seed,
        )
        for seed, count in enumerate(wrong)
    ]


def test_mean_deviation_and_interval_are_those_of_student(tmp_path: Path) -> None:
    found = seeds(tmp_path, 40, 60, 56)
    rows = summarize_seeds(
        [row for seed in found for row in seed.rows],
        [seed.ranked for seed in found],
        found[0].results.objectives,
        50,
    )
    (row,) = [row for row in rows if row.config == "int8"]
    top1 = 1 - np.array([40, 60, 56]) / 400
    low, high = stats.t.interval(0.95, 2, top1.mean(), stats.sem(top1))
    assert row.seeds == 3
    assert row.top1_mean == pytest.approx(top1.mean())
    assert row.top1_sd == pytest.approx(top1.std(ddof=1))
    assert row.top1_low == pytest.approx(low)
    assert row.top1_high == pytest.approx(high)
    assert row.diff_pp_mean == pytest.approx(100 * (top1.mean() - 0.9))
    assert (row.size_bytes_mean, row.size_bytes_sd) == (250_000, 0)


def test_one_seed_has_a_mean_and_no_interval(tmp_path: Path) -> None:
    (found,) = seeds(tmp_path, 44)
    rows = summarize_seeds(found.rows, [found.ranked], found.results.objectives, 50)
    assert {(row.top1_sd, row.top1_low, row.latency_p50_s_high) for row in rows} == {(None, None, None)}
    assert rows[0].top1_mean == pytest.approx(0.9)


def test_a_seed_in_which_a_variant_failed_does_not_count(tmp_path: Path) -> None:
    good = swept(tmp_path, seed=0)
    broken = [
        dataclasses.replace(variant, status=Status.DIED, reason="killed")
        if variant.config == "int8"
        else variant
        for variant in GRID
    ]
    bad = swept(tmp_path, broken, seed=1)
    rows = summarize_seeds([*good.rows, *bad.rows], [good.ranked, bad.ranked], good.results.objectives, 50)
    (row,) = [row for row in rows if row.config == "int8"]
    assert row.seeds == 1
    assert row.top1_mean is not None
    assert row.frontier_probability is None


def test_a_place_that_depends_on_the_seed_is_less_certain(tmp_path: Path) -> None:
    """pruned50_fp32 is on the frontier as long as INT8, smaller and faster, is less accurate."""
    steady = seeds(tmp_path / "steady", 60, 60)
    luck = seeds(tmp_path / "luck", 70, 40)
    objectives = steady[0].results.objectives
    sure = probability_over_seeds([seed.ranked for seed in steady], objectives, 400)["pruned50_fp32@eager"]
    unsure = probability_over_seeds([seed.ranked for seed in luck], objectives, 400)["pruned50_fp32@eager"]
    assert sure > 0.95
    # Only the draws that take the first seed twice, a quarter of all, and those where its lead outweighs.
    assert 0.2 < unsure < 0.9


def test_nothing_ranked_in_all_seeds_has_no_probability(tmp_path: Path) -> None:
    (found,) = seeds(tmp_path, 44)
    assert probability_over_seeds([found.ranked, {}], found.results.objectives, 10) == {}
