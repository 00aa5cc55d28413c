from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from quant_explorer.analysis.sweep.interaction import Interaction
from quant_explorer.core.measurement import Status
from tests.analysis.sweep.swept import GRID, swept


def only(folder: Path, wrong: int = 56, **changes: object) -> Interaction:
    both = dataclasses.replace(GRID[3], wrong=wrong, **changes)  # type: ignore[arg-type]
    (found,) = swept(folder, (*GRID[:3], both)).interactions
    return found


def test_losses_are_paired_and_the_excess_is_what_is_beyond_their_sum(tmp_path: Path) -> None:
    found = only(tmp_path)
    assert (found.runtime, found.pruning, found.precision, found.images) == ("eager", 0.5, "int8", 400)
    assert found.precision_loss_pp == pytest.approx(1.0)
    assert found.pruning_loss_pp == pytest.approx(2.0)
    assert found.joint_loss_pp == pytest.approx(4.0)
    assert found.excess_pp == pytest.approx(1.0)
    assert found.excess_low_pp is not None
    assert found.excess_high_pp is not None
    assert found.excess_low_pp < 1.0 < found.excess_high_pp


@pytest.mark.parametrize(("wrong", "verdict"), [(52, "adds up"), (90, "compounds"), (20, "compensates")])
def test_the_verdict_is_the_interval_s(tmp_path: Path, wrong: int, verdict: str) -> None:
    found = only(tmp_path, wrong)
    assert found.verdict == verdict
    assert found.excess_low_pp is not None
    assert found.excess_high_pp is not None
    assert (found.excess_low_pp <= 0 <= found.excess_high_pp) == (verdict == "adds up")


def test_no_change_at_all_is_no_certainty(tmp_path: Path) -> None:
    same = [dataclasses.replace(variant, wrong=40) for variant in GRID[:4]]
    (found,) = swept(tmp_path, same).interactions
    assert found.excess_pp == 0
    assert found.verdict == "adds up"
    assert found.excess_high_pp is not None
    assert found.excess_high_pp > 0


def test_a_missing_corner_is_named(tmp_path: Path) -> None:
    found = only(tmp_path, status=Status.BUILD_FAILED, reason="too small")
    assert (found.excess_pp, found.verdict) == (None, "")
    assert found.reason == "not scored on eager: int8 pruned by 0.5"


def test_a_subset_compares_the_images_that_all_four_saw(tmp_path: Path) -> None:
    found = only(tmp_path, images=200, wrong=10)
    assert found.images == 200
    # The first 200 images: nobody else is wrong there.
    assert found.joint_loss_pp == pytest.approx(5.0)
    assert found.pruning_loss_pp == pytest.approx(0.0)
