from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.analysis.decide.comparison import Recorded, RunComparison, VariantComparison, compare_runs
from quant_explorer.analysis.rank import gather_candidates, order_environments
from quant_explorer.core.errors import StudyError
from quant_explorer.core.settings.groups import DecisionRules
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BASELINE, RUN

INT8 = Played("int8", slowness=0.25, wrong=44, size_bytes=250_000)


def recorded(path: Path, *played: Played, scene: Scene | None = None) -> Recorded:
    study = play(path, (BASELINE, *played), scene)
    return Recorded(order_environments(study, RUN)[0], gather_candidates(study, RUN))


def compared(
    folder: Path, first: Played, second: Played, scene: Scene | None = None
) -> tuple[RunComparison, VariantComparison]:
    runs = (recorded(folder / "a", first), recorded(folder / "b", second, scene=scene))
    found = compare_runs(*runs, 1, DecisionRules())
    return found, next(variant for variant in found.variants if variant.name == "int8@eager")


@pytest.mark.parametrize(
    ("slowness", "speed", "ratio"), [(0.2, "faster", 1.25), (0.25, "tied", 1.0), (0.3, "slower", 0.833)]
)
def test_speeds_compare_beside_fp32_of_the_same_run(
    tmp_path: Path, slowness: float, speed: str, ratio: float
) -> None:
    # B's machine is half as fast, with all that it runs.
    _, found = compared(tmp_path, INT8, replace(INT8, slowness=slowness), Scene(base_s=2e-3, seed=1))
    assert found.speed == speed
    assert found.speed_ratio == pytest.approx(ratio, rel=0.01)
    assert found.speed_ci is not None
    assert found.speed_ci.contains(ratio) or speed == "slower"


@pytest.mark.parametrize(
    ("wrong", "quality", "diff_pp"),
    [(44, "tie", 0.0), (46, "tie", -0.5), (80, "loss", -9.0), (4, "gain", 10)],
)
def test_accuracies_are_paired_by_image(tmp_path: Path, wrong: int, quality: str, diff_pp: float) -> None:
    _, found = compared(tmp_path, INT8, replace(INT8, wrong=wrong))
    assert (found.quality, found.images) == (quality, 400)
    assert found.diff_pp == pytest.approx(diff_pp)


def test_sizes_have_their_ratio(tmp_path: Path) -> None:
    assert compared(tmp_path, INT8, replace(INT8, size_bytes=300_000))[1].size_ratio == 1.2


def test_another_machine_is_named_and_its_speed_not_compared(tmp_path: Path) -> None:
    both, found = compared(tmp_path, INT8, INT8, Scene(environment="env-b"))
    assert both.environments == "CPU CPU of env-a there, CPU of env-b here"
    assert (found.speed, found.speed_ratio) == ("not comparable", None)
    assert found.reasons["speed_ratio"] == f"measured on another machine ({both.environments})"
    assert found.quality == "tie"


def test_too_few_rounds_do_not_compare(tmp_path: Path) -> None:
    _, found = compared(tmp_path, INT8, INT8, Scene(rounds=4))
    assert found.reasons["speed_ratio"] == "needs at least 6 rounds of each at batch 1, has 4"


def test_what_one_run_lacks_is_listed(tmp_path: Path) -> None:
    found, _ = compared(tmp_path, INT8, INT8)
    assert (found.only_in_a, found.only_in_b) == ((), ())
    runs = (recorded(tmp_path / "c", INT8), recorded(tmp_path / "d", replace(INT8, config="other")))
    found = compare_runs(*runs, 1, DecisionRules())
    assert (found.only_in_a, found.only_in_b) == (("int8@eager (small_cnn)",), ("other@eager (small_cnn)",))


def test_runs_without_a_common_variant_do_not_compare(tmp_path: Path) -> None:
    other = Recorded(
        recorded(tmp_path / "b", INT8).environment,
        (),
    )
    with pytest.raises(StudyError, match=r"The first has .*int8@eager of small_cnn; the second has none"):
        compare_runs(recorded(tmp_path / "a", INT8), other, 1, DecisionRules())
