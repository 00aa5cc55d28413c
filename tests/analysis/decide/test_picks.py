from __future__ import annotations

from pathlib import Path

from quant_explorer.analysis.results import Results
from quant_explorer.testing.replay import Played
from tests.analysis.replayed import BASELINE, BROKEN, ORDINARY, ranked


def picked(results: Results) -> dict[str, tuple[str, ...]]:
    return {pick.kind: tuple(name.removesuffix("@eager") for name in pick.names) for pick in results.picks}


def test_clear_winners_and_an_accuracy_tie(tmp_path: Path) -> None:
    assert picked(ranked(tmp_path, (*ORDINARY, BROKEN))) == {
        "smallest": ("static_int8_per_tensor",),
        # 42 and 40 wrong images of 400, nested: the interval of that difference holds 0.
        "most accurate": ("fp32_baseline", "static_int8_per_channel"),
        "fastest": ("static_int8_per_tensor",),
    }


def test_equal_sizes_and_overlapping_speeds_are_ties(tmp_path: Path) -> None:
    played = (
        BASELINE,
        Played("a", slowness=0.5, wrong=80, size_bytes=300),
        Played("b", slowness=0.5001, wrong=60, size_bytes=300),
    )
    found = picked(ranked(tmp_path, played))
    assert found["smallest"] == ("a", "b")
    assert set(found["fastest"]) == {"a", "b"}


def test_separate_speeds_are_no_tie(tmp_path: Path) -> None:
    played = (
        BASELINE,
        Played("a", slowness=0.5, wrong=80, size_bytes=300),
        Played("b", slowness=0.55, wrong=60, size_bytes=300),
    )
    assert picked(ranked(tmp_path, played))["fastest"] == ("a",)


def test_only_the_frontier_is_picked_from(tmp_path: Path) -> None:
    # As accurate as the best and dominated: no pick.
    played = (BASELINE, Played("copy", slowness=2.0, wrong=40))
    assert picked(ranked(tmp_path, played))["most accurate"] == ("fp32_baseline",)
