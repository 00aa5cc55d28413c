from __future__ import annotations

import numpy as np
import pytest
import torch

from quant_explorer.pipeline.building.simulation.activation_range import Observed, Range
from quant_explorer.testing.reference import Affine


@pytest.mark.parametrize("levels", [127, 255])
def test_rounding_is_that_of_the_definition(levels: int) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    covered = Range.of(torch.from_numpy(values).float())
    rounded = covered.round(torch.from_numpy(2 * values).float(), levels).numpy()
    expected = Affine.of(values, levels).round_trip(2 * values)
    assert np.mean(np.abs(rounded - expected) > 1e-5) < 0.01


@pytest.mark.parametrize(("low", "high"), [(1.0, 3.0), (-3.0, -1.0), (0.0, 0.0)])
def test_zero_is_in_every_range_and_stays_zero(low: float, high: float) -> None:
    covered = Range.of(torch.tensor([low, high]))
    assert covered.low <= 0 <= covered.high
    assert float(covered.round(torch.zeros(1), 255)) == 0.0


@pytest.mark.parametrize("mask", [-float("inf"), torch.finfo(torch.float32).min])
def test_a_mask_is_on_no_grid(mask: float) -> None:
    values = torch.tensor([mask, 0.3, 0.7])
    assert torch.equal(Range.of(values).round(values, 255), values)


def test_least_squares_is_the_best_part_of_the_range_that_was_seen() -> None:
    """Found here by trying all pairs of ends; a few large values are clipped for the many small ones."""
    values = np.random.default_rng(0).standard_normal(4000) ** 3
    observed = Observed(None)
    for part in np.split(values, 4):
        observed.add(torch.from_numpy(part).float())
    found, widest = observed.least_squares(15), observed.min_max()

    def error(low: float, high: float) -> float:
        grid = Affine.of(np.array([low, high]), 15)
        return float(((grid.round_trip(values) - values) ** 2).sum())

    shares = np.linspace(0.05, 1, 40)
    best = min(error(widest.low * a, widest.high * b) for a in shares for b in shares)
    assert error(widest.low, widest.high) > 1.3 * best
    assert error(found.low, found.high) < 1.1 * best


def test_samples_are_of_all_columns_of_a_map() -> None:
    """As behind a transposed convolution of stride 2: the values in the odd columns are much larger."""
    maps = torch.zeros(8, 8, 32, 32)
    maps[..., 1::2] = torch.linspace(5, 10, 8 * 8 * 32 * 16).view(8, 8, 32, 16)
    observed = Observed(None)
    observed.add(maps)
    assert observed.least_squares(255).high > 9


def test_a_range_that_the_operator_fixes_is_kept() -> None:
    observed = Observed(Range(0.0, 1.0))
    observed.add(torch.tensor([0.1, 0.2]))
    assert observed.min_max() == observed.least_squares(255) == Range(0.0, 1.0)
