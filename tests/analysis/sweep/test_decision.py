from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from quant_explorer.analysis.sweep.decision import Decision, decide
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.testing.replay import Played
from tests.analysis.sweep.swept import GRID, swept


def decided(folder: Path, budgets: Budgets, *seeds: Sequence[Played]) -> Decision:
    found = [swept(folder, played, seed=seed) for seed, played in enumerate(seeds or [GRID])]
    return decide([one.results.variants for one in found], budgets, batch=1)


def test_with_an_accuracy_limit_the_fastest_within_budget_is_picked(tmp_path: Path) -> None:
    found = decided(tmp_path, Budgets(accuracy_drop_pp=3.0))
    assert found.chosen == "int8@eager"
    assert [one.name for one in found.rejected] == ["pruned50_int8@eager"]
    assert found.rejected[0].over == ("accuracy drop: 4 pp, 1 pp over the 3 allowed",)
    assert (found.closest, found.failed) == (None, ())


def test_by_the_bad_end_of_the_interval_less_is_within_budget(tmp_path: Path) -> None:
    by_point = decided(tmp_path, Budgets(accuracy_drop_pp=1.5))
    by_interval = decided(tmp_path, Budgets(accuracy_drop_pp=1.5, use_ci=True))
    assert by_point.chosen == "int8@eager"
    assert by_interval.chosen in ("fp32_baseline@eager", "fp32_finetune@eager")


@pytest.mark.parametrize(
    ("budgets", "over"),
    [
        (Budgets(memory_bytes=70e6), None),
        (Budgets(memory_bytes=0.2e6), "size: 0.25 MB, 0.05 MB over the 0.2 allowed"),
        (Budgets(active_memory_bytes=40e6), "active memory: 50 MB, 10 MB over the 40 allowed"),
        (Budgets(latency_s=0.2e-3), "latency: 0.25"),
    ],
)
def test_each_budget_says_by_how_much(tmp_path: Path, budgets: Budgets, over: str | None) -> None:
    told = {one.name: one.over for one in decided(tmp_path, budgets).rejected}.get("int8@eager")
    assert told is None if over is None else told is not None and told[0].startswith(over)


def test_without_a_limit_the_fastest_that_measurably_loses_nothing_is_picked(tmp_path: Path) -> None:
    lossy = [
        dataclasses.replace(one, wrong=one.wrong * 4 if one.config == "int8" else one.wrong) for one in GRID
    ]
    found = decided(tmp_path, Budgets(latency_s=1.0), lossy[:2])
    assert found.chosen == "fp32_baseline@eager"
    assert "no measurable loss" in found.rule


def test_when_all_within_budget_lose_the_most_accurate_is_picked(tmp_path: Path) -> None:
    worse = [
        dataclasses.replace(one, wrong=one.wrong + 60 if one.config != "fp32_baseline" else one.wrong)
        for one in GRID[:4]
    ]
    found = decided(tmp_path, Budgets(memory_bytes=60e6, latency_s=0.9e-3), worse)
    assert found.chosen == "int8@eager"
    assert "the most accurate" in found.rule


def test_when_all_are_rejected_the_closest_is_named_with_its_amount(tmp_path: Path) -> None:
    found = decided(tmp_path, Budgets(latency_s=0.1e-3))
    assert found.chosen is None
    assert found.within == ()
    assert found.closest is not None
    assert found.closest.name == "pruned50_int8@eager"
    assert found.closest.over[0].startswith("latency: 0.125")


def test_when_all_failed_nothing_comes_closest(tmp_path: Path) -> None:
    broken = [dataclasses.replace(one, status=Status.DIED, reason="killed") for one in GRID]
    found = decided(tmp_path, Budgets(latency_s=1.0), broken)
    assert (found.chosen, found.closest) == (None, None)
    assert len(found.failed) == len(GRID)


def test_a_variant_must_be_within_budget_in_every_seed(tmp_path: Path) -> None:
    unlucky = [dataclasses.replace(one, wrong=80 if one.config == "int8" else one.wrong) for one in GRID]
    assert decided(tmp_path / "a", Budgets(accuracy_drop_pp=1.5), GRID, GRID).chosen == "int8@eager"
    found = decided(tmp_path / "b", Budgets(accuracy_drop_pp=1.5), GRID, unlucky)
    assert found.chosen != "int8@eager"
    assert "int8@eager" in [one.name for one in found.rejected]


def test_a_variant_that_one_seed_lacks_is_failed(tmp_path: Path) -> None:
    found = decided(tmp_path, Budgets(), GRID, GRID[:1])
    assert found.failed == ("int8@eager", "pruned50_fp32@eager", "pruned50_int8@eager", "fp32_finetune@eager")


def test_what_was_not_timed_is_over_the_latency_budget(tmp_path: Path) -> None:
    untimed = [dataclasses.replace(one, latency=one.config != "int8") for one in GRID]
    told = {one.name: one.over for one in decided(tmp_path, Budgets(latency_s=1.0), untimed).rejected}
    assert told == {"int8@eager": ("latency: unknown (not timed), at most 1000 ms allowed",)}
