from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from quant_explorer.stats.frontier import Objective, dominated_by, frontier_probability, on_frontier

Array = NDArray[np.float64]
Directions = tuple[Objective, ...]

fixed = settings(derandomize=True, deadline=None, max_examples=100)

SIZE = Objective("size_bytes", "minimize", "bytes")
TOP1 = Objective("top1", "maximize", "share")


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Directions]:
    """A few points on a coarse grid, so that equal points and ties on an axis are common."""
    axes = draw(st.integers(1, 4))
    points = draw(arrays(np.float64, (draw(st.integers(0, 9)), axes), elements=st.integers(-2, 2).map(float)))
    objectives = tuple(draw(st.sampled_from([SIZE, TOP1])) for _ in range(axes))
    return points, objectives


def dominates(a: Array, b: Array, objectives: Directions) -> bool:
    gains = [
        (x - y) if objective.direction == "maximize" else (y - x)
        for x, y, objective in zip(a.tolist(), b.tolist(), objectives, strict=True)
    ]
    return bool(min(gains) >= 0 and max(gains) > 0)


class TestDominance:
    @fixed
    @given(problems())
    def test_agrees_with_brute_force(self, problem: tuple[Array, Directions]) -> None:
        points, objectives = problem
        expected = tuple(
            tuple(i for i, other in enumerate(points) if dominates(other, point, objectives))
            for point in points
        )
        assert dominated_by(points, objectives) == expected
        assert on_frontier(points, objectives).tolist() == [not dominators for dominators in expected]

    @fixed
    @given(problems())
    def test_something_is_always_on_the_frontier(self, problem: tuple[Array, Directions]) -> None:
        points, objectives = problem
        assert on_frontier(points, objectives).any() == (len(points) > 0)

    def test_equal_points_are_both_kept(self) -> None:
        points = np.array([[1.0, 0.9], [1.0, 0.9], [2.0, 0.8]])
        assert on_frontier(points, (SIZE, TOP1)).tolist() == [True, True, False]
        assert dominated_by(points, (SIZE, TOP1)) == ((), (), (0, 1))

    def test_direction_decides(self) -> None:
        points = np.array([[1.0], [2.0]])
        assert on_frontier(points, (SIZE,)).tolist() == [True, False]
        assert on_frontier(points, (TOP1,)).tolist() == [False, True]

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_refuses_missing_figures(self, bad: float) -> None:
        points = np.array([[1.0, 0.9], [bad, 0.8]])
        with pytest.raises(ValueError, match="finite"):
            on_frontier(points, (SIZE, TOP1))
        with pytest.raises(ValueError, match="finite"):
            dominated_by(points, (SIZE, TOP1))

    @pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 3), (2, 3, 2)])
    def test_refuses_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="shape"):
            on_frontier(np.ones(shape), (SIZE, TOP1))

    def test_refuses_no_objectives(self) -> None:
        with pytest.raises(ValueError, match="shape"):
            on_frontier(np.ones((3, 0)), ())


class TestFrontierProbability:
    def test_is_the_share_of_draws_on_the_frontier(self) -> None:
        draws = np.array([[[1.0, 0.9], [2.0, 0.8]], [[1.0, 0.9], [2.0, 0.95]], [[1.0, 0.9], [2.0, 0.9]]])
        np.testing.assert_allclose(frontier_probability(draws, (SIZE, TOP1)), [1.0, 1 / 3])

    def test_equal_draws_give_certainty(self) -> None:
        points = np.array([[3.0, 0.7], [1.0, 0.9], [2.0, 0.95]])
        draws = np.repeat(points[None], 5, axis=0)
        expected = on_frontier(points, (SIZE, TOP1)).astype(float)
        np.testing.assert_array_equal(frontier_probability(draws, (SIZE, TOP1)), expected)

    @pytest.mark.parametrize("shape", [(0, 3, 2), (3, 2), (4, 3, 3)])
    def test_refuses_another_shape_or_no_draws(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="shape"):
            frontier_probability(np.ones(shape), (SIZE, TOP1))

    def test_refuses_missing_figures(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            frontier_probability(np.full((2, 3, 2), np.nan), (SIZE, TOP1))
