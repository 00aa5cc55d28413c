from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from quant_explorer.analysis.decide.budgets import memory_at
from quant_explorer.analysis.decide.decision import Candidates, Decision, decide
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import Budgets, Cost
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.sweep.swept import GRID, swept

POINTS = Budgets(use_ci=False)


def decided(
    folder: Path,
    budgets: Budgets,
    *seeds: Sequence[Played],
    minimize: Cost = "latency",
    scene: Scene | None = None,
) -> Decision:
    found = [swept(folder, played, seed=seed, scene=scene) for seed, played in enumerate(seeds or [GRID])]
    candidates = [Candidates(seed.results.variants, seed.evidence) for seed in found]
    return decide(candidates, budgets, batch=1, minimize=minimize)


def test_the_fastest_within_the_budgets_is_picked(tmp_path: Path) -> None:
    found = decided(tmp_path, dataclasses.replace(POINTS, accuracy_drop_pp=3.0))
    assert found.chosen == "int8@eager"
    assert [variant.name for variant in found.rejected] == ["pruned50_int8@eager"]
    assert found.rejected[0].over == ("accuracy drop: 4 pp, 1 pp over the 3 allowed",)
    assert (found.closest, found.failed, found.tied) == (None, (), ())


def test_by_the_bad_end_of_the_interval_less_is_within_budget(tmp_path: Path) -> None:
    by_interval = decided(tmp_path, Budgets(accuracy_drop_pp=1.5))
    # As fast as each other.
    assert {by_interval.chosen, *by_interval.tied} == {"fp32_baseline@eager", "fp32_finetune@eager"}
    assert "int8@eager" in [variant.name for variant in by_interval.rejected]
    assert decided(tmp_path / "b", dataclasses.replace(POINTS, accuracy_drop_pp=1.5)).chosen == "int8@eager"


@pytest.mark.parametrize(
    ("budgets", "over"),
    [
        (Budgets(memory_bytes=70e6), None),
        (Budgets(size_bytes=0.2e6), "size: 0.25 MB, 0.05 MB over the 0.2 allowed"),
        (Budgets(memory_bytes=40e6), "peak memory: 50 MB, 10 MB over the 40 allowed"),
        (Budgets(latency_s=0.2e-3), "latency: 0.25"),
        (Budgets(latency_s=1.0, percentile="p99"), "p99 latency: unknown (p99 needs more than 662 calls"),
    ],
)
def test_each_budget_says_by_how_much(tmp_path: Path, budgets: Budgets, over: str | None) -> None:
    found = {variant.name: variant.over for variant in decided(tmp_path, budgets).rejected}.get("int8@eager")
    assert found is None if over is None else found is not None and found[0].startswith(over)


@pytest.mark.parametrize(
    ("minimize", "chosen", "tied"),
    [
        ("latency", "pruned50_int8@eager", ()),
        ("size", "pruned50_int8@eager", ()),
        # All have the same.
        ("memory", "fp32_baseline@eager", 4),
    ],
)
def test_what_is_minimized_decides(
    tmp_path: Path, minimize: Cost, chosen: str, tied: tuple[str, ...] | int
) -> None:
    found = decided(tmp_path, Budgets(), minimize=minimize)
    assert found.chosen == chosen
    assert len(found.tied) == tied if isinstance(tied, int) else found.tied == tied


def test_nothing_is_picked_by_a_cost_that_was_not_measured(tmp_path: Path) -> None:
    found = decided(tmp_path, Budgets(), minimize="energy")
    assert found.chosen is None
    assert found.rule == "none of those within all budgets has a figure of energy"


def test_what_a_direct_comparison_does_not_separate_ties(tmp_path: Path) -> None:
    played = (
        *GRID[:2],
        Played("as_fast", slowness=0.2505, wrong=40),
        Played("slower", slowness=0.27, wrong=40),
    )
    found = decided(tmp_path, Budgets(), played, scene=Scene(noise=0.02))
    assert {found.chosen, *found.tied} == {"int8@eager", "as_fast@eager"}


def test_the_99th_percentile_is_held_by_its_bad_end(tmp_path: Path) -> None:
    scene = Scene(calls=100, noise=0.1)
    slow = decided(tmp_path, Budgets(latency_s=0.3e-3, percentile="p99"), GRID[:2], scene=scene)
    assert slow.rejected[-1].name == "int8@eager"
    (over,) = slow.rejected[-1].over
    # 0.25 ms and the 99th percentile of |normal| noise of 10 %, 2.6 standard deviations.
    assert 0.25 * 1.25 < float(over.split()[2]) < 0.25 * 1.35


def test_only_the_runtimes_that_were_asked_for_are_judged(tmp_path: Path) -> None:
    served = Played("int8", slowness=0.5, wrong=44, size_bytes=250_000, runtime="served")
    found = decided(tmp_path, dataclasses.replace(POINTS, runtimes=("served",)), (*GRID, served))
    assert (found.chosen, found.within) == ("int8@served", ("int8@served",))
    nowhere = decided(tmp_path / "b", dataclasses.replace(POINTS, runtimes=("absent",)), GRID)
    assert (nowhere.rule, nowhere.judged_on) == ("no variant was measured", "")


def test_the_peak_memory_of_a_larger_batch_bounds_that_of_a_smaller(tmp_path: Path) -> None:
    variant = swept(tmp_path).results.variants[0]
    assert [memory_at(variant, batch) for batch in (1, 4, 8)] == [50e6, 400e6, 400e6]
    assert memory_at(variant, 32) == "measured up to batch 8"


def test_an_untrained_model_is_held_by_its_changed_predictions(tmp_path: Path) -> None:
    # They differ from the baseline's on 4, 8 and 16 of 400 images.
    scene = Scene(trained=False)
    found = decided(tmp_path, dataclasses.replace(POINTS, accuracy_drop_pp=1.5), GRID[:4], scene=scene)
    assert found.chosen == "int8@eager"
    assert {over for variant in found.rejected for over in variant.over} == {
        "changed predictions: 2 pp, 0.5 pp over the 1.5 allowed",
        "changed predictions: 4 pp, 2.5 pp over the 1.5 allowed",
    }


def test_when_all_are_rejected_the_closest_is_named_with_its_amount(tmp_path: Path) -> None:
    found = decided(tmp_path, Budgets(latency_s=0.1e-3))
    assert found.chosen is None
    assert found.within == ()
    assert found.closest is not None
    assert found.closest.name == "pruned50_int8@eager"
    assert found.closest.over[0].startswith("latency: 0.125")


def test_the_budget_that_costs_most_is_named(tmp_path: Path) -> None:
    # Without the limit of latency three would be within, without that of accuracy one.
    found = decided(tmp_path, dataclasses.replace(POINTS, latency_s=0.2e-3, accuracy_drop_pp=1.5))
    assert found.obstacle is not None
    assert (found.obstacle.budget, found.obstacle.rejected) == ("latency", 4)
    # The nearest first.
    assert found.obstacle.freed[0] == "int8@eager"
    assert set(found.obstacle.freed[1:]) == {"fp32_baseline@eager", "fp32_finetune@eager"}


def test_where_no_budget_alone_frees_a_variant_the_one_most_exceed_is_named(tmp_path: Path) -> None:
    found = decided(tmp_path, dataclasses.replace(POINTS, latency_s=0.01e-3, size_bytes=1e3))
    assert found.obstacle is not None
    assert (found.obstacle.freed, found.obstacle.rejected) == ((), 5)


def test_when_all_failed_nothing_comes_closest(tmp_path: Path) -> None:
    broken = [dataclasses.replace(variant, status=Status.DIED, reason="killed") for variant in GRID]
    found = decided(tmp_path, Budgets(latency_s=1.0), broken)
    assert (found.chosen, found.closest) == (None, None)
    assert len(found.failed) == len(GRID)


def test_a_variant_must_be_within_budget_in_every_seed(tmp_path: Path) -> None:
    unlucky = [
        dataclasses.replace(variant, wrong=80 if variant.config == "int8" else variant.wrong)
        for variant in GRID
    ]
    assert (
        decided(tmp_path / "a", dataclasses.replace(POINTS, accuracy_drop_pp=1.5), GRID, GRID).chosen
        == "int8@eager"
    )
    found = decided(tmp_path / "b", dataclasses.replace(POINTS, accuracy_drop_pp=1.5), GRID, unlucky)
    assert found.chosen != "int8@eager"
    assert "int8@eager" in [variant.name for variant in found.rejected]


def test_a_variant_that_one_seed_lacks_is_failed(tmp_path: Path) -> None:
    found = decided(tmp_path, Budgets(), GRID, GRID[:1])
    assert found.failed == ("int8@eager", "pruned50_fp32@eager", "pruned50_int8@eager", "fp32_finetune@eager")


def test_what_was_not_timed_is_over_the_latency_budget(tmp_path: Path) -> None:
    untimed = [dataclasses.replace(variant, latency=variant.config != "int8") for variant in GRID]
    (rejected,) = decided(tmp_path, Budgets(latency_s=1.0), untimed).rejected
    assert rejected.name == "int8@eager"
    assert rejected.over == ("latency: unknown (not timed at this batch size), at most 1000 ms allowed",)
