from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from quant_explorer.analysis.sweep.summary import summarize_sweep
from quant_explorer.core.errors import StudyError
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.testing.replay import Scene
from tests.analysis.sweep.swept import GRID, PLAN, swept


def test_seeds_of_different_machines_are_never_summarized_together(tmp_path: Path) -> None:
    here, there = swept(tmp_path), swept(tmp_path, seed=1, scene=Scene(environment="env-b"))
    reason = r"seed 1 was measured in another environment than seed 0 \(CPU CPU of env-b there, CPU of env-a"
    with pytest.raises(StudyError, match=reason):
        summarize_sweep([here, there], PLAN)


def test_variants_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    unsupported = dataclasses.replace(GRID[1], status=Status.UNSUPPORTED, reason="no such kernel")
    died = dataclasses.replace(GRID[2], status=Status.DIED, reason="killed")
    summary = summarize_sweep([swept(tmp_path, [GRID[0], unsupported, died, *GRID[3:]])], PLAN)
    assert (summary.variants, summary.measured, summary.unsupported, summary.failed) == (5, 3, 1, 1)


def test_what_is_picked_is_described_as_it_would_serve(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, budgets=(Budgets(accuracy_drop_pp=1.5, use_ci=False),))
    (deployment,) = summarize_sweep([swept(tmp_path, plan=plan)], plan).deployments
    assert deployment.name == "int8@eager"
    assert deployment.cold_start_s == 0.2
    assert deployment.size_bytes == 250_000
    assert [(throughput.threads, throughput.batch_size) for throughput in deployment.throughput] == [
        (1, 1),
        (1, 8),
    ]
    single = deployment.single_image_s
    assert list(single)[:4] == ["p5", "p25", "p50", "p75"]
    assert single["p5"] <= single["p25"] <= single["p50"] <= single["p75"]
    assert deployment.throughput[1].images_per_s == pytest.approx(8 / deployment.throughput[1].p50_s)


def test_the_control_says_how_much_is_training(tmp_path: Path) -> None:
    assert "changes top-1 by +1.00 pp" in summarize_sweep([swept(tmp_path)], PLAN).control
    without = summarize_sweep([swept(tmp_path / "b", GRID[:4])], PLAN)
    assert without.control == "nothing was fine-tuned"
