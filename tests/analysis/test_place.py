from __future__ import annotations

import numpy as np
import pytest

from quant_explorer.analysis.place import RankedVariant, default_objectives, find_places

AXES = default_objectives(1, trained=True)


def contender(name: str, size: int, latency: float, wrong: int, spread: float = 0.0) -> RankedVariant:
    medians = latency * (1 + spread * np.random.default_rng(len(name)).standard_normal(20))
    right = (np.arange(100) >= wrong).astype(np.float64)
    return RankedVariant(name, size, float(np.median(medians)), medians, right)


def test_equal_points_are_both_kept() -> None:
    places = find_places([contender("a", 1, 1.0, 5), contender("b", 1, 1.0, 5)], AXES, 50)
    assert [place.on_frontier for place in places] == [True, True]
    assert [place.probability for place in places] == [1.0, 1.0]


def test_a_dominated_point_names_who_dominates_it() -> None:
    places = find_places([contender("bad", 2, 2.0, 9), contender("good", 1, 1.0, 5)], AXES, 50)
    assert places[0].dominated_by == ("good",)
    assert places[0].probability == 0.0
    assert places[1].dominated_by == ()


def test_a_close_call_has_a_probability_between() -> None:
    # Equal in size, and the one that is a little slower is right on one image more.
    places = find_places([contender("a", 1, 1.0, 5), contender("b", 1, 1.01, 4)], AXES, 500)
    assert places[1].on_frontier is True
    assert places[1].probability is not None
    # In (1 - 1/100)**100 of the draws the one image that differs is not drawn.
    assert places[1].probability == pytest.approx(1 - 0.99**100, abs=0.1)


def test_values_below_zero_are_drawn_about_their_mean() -> None:
    ordinary = contender("a", 1, 1.0, 50)
    values = np.where(np.arange(100) < 40, -1.0, 1.0)
    shifted = RankedVariant("b", 1, 1.0, ordinary.round_medians_s, values)
    places = find_places([ordinary, shifted], AXES, 200)
    # A mean of 0.2 against one of 0.5: were negative values dropped or clipped, the better one.
    assert [place.on_frontier for place in places] == [True, False]
    assert places[1].probability is not None
    assert places[1].probability < 0.05


def test_nobody_to_rank() -> None:
    assert find_places([], AXES, 10) == ()
