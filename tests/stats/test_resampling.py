from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from quant_explorer.stats.resampling import draw_accuracy, draw_latency

Array = NDArray[np.float64]


class TestDrawAccuracy:
    def images(self, variants: int = 3, images: int = 400) -> Array:
        return (np.random.default_rng(0).random((variants, images)) < 0.8).astype(np.float64)

    def test_scatters_around_the_accuracy_by_its_standard_error(self) -> None:
        correct = self.images()
        drawn = draw_accuracy(correct, draws=4_000, seed=1)
        accuracy = correct.mean(axis=1)
        error = np.sqrt(accuracy * (1 - accuracy) / correct.shape[1])
        assert drawn.shape == (4_000, 3)
        assert np.all(np.abs(drawn.mean(axis=0) - accuracy) < 5 * error / math.sqrt(4_000))
        np.testing.assert_allclose(drawn.std(axis=0), error, rtol=0.1)

    def test_images_are_resampled_together(self) -> None:
        """A variant that is right wherever another is, and more often, wins or ties in every draw."""
        worse = self.images(variants=1)[0]
        better = worse.copy()
        better[np.flatnonzero(worse == 0)[:10]] = 1.0
        drawn = draw_accuracy(np.stack([better, worse, worse]), draws=500, seed=2)
        assert np.all(drawn[:, 0] >= drawn[:, 1])
        assert np.all(drawn[:, 1] == drawn[:, 2])
        assert len(np.unique(drawn[:, 0])) > 10

    def test_the_drawn_difference_has_the_paired_standard_error(self) -> None:
        correct = self.images(variants=2)
        drawn = draw_accuracy(correct, draws=4_000, seed=3)
        paired = correct[0] - correct[1]
        expected = paired.std() / math.sqrt(len(paired))
        assert (drawn[:, 0] - drawn[:, 1]).std() == pytest.approx(expected, rel=0.1)

    def test_a_variant_scored_on_a_subset_scatters_more(self) -> None:
        correct = self.images(variants=1).repeat(2, axis=0)
        correct[1, 100:] = np.nan
        drawn = draw_accuracy(correct, draws=4_000, seed=4)
        seen = correct[1, :100]
        assert drawn[:, 1].mean() == pytest.approx(seen.mean(), abs=0.005)
        assert drawn[:, 1].std() == pytest.approx(seen.std() / 10, rel=0.1)
        assert drawn[:, 1].std() > 1.5 * drawn[:, 0].std()

    def test_a_draw_without_any_image_of_a_variant_takes_its_overall_accuracy(self) -> None:
        correct = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, np.nan, np.nan, np.nan]])
        drawn = draw_accuracy(correct, draws=300, seed=5)
        assert np.all(drawn[:, 1] == 1.0)
        assert set(np.unique(drawn[:, 0])) == {0.0, 0.25, 0.5, 0.75, 1.0}

    def test_scores_may_be_negative(self) -> None:
        correct = self.images()
        correct[2, 50:] = np.nan
        shifted = draw_accuracy(correct - 3, draws=300, seed=6)
        np.testing.assert_allclose(shifted, draw_accuracy(correct, draws=300, seed=6) - 3)

    def test_the_seed_decides(self) -> None:
        correct = self.images()
        first, again, other = (draw_accuracy(correct, draws=300, seed=seed) for seed in (6, 6, 7))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize(
        "correct",
        [np.ones(5), np.ones((0, 5)), np.ones((2, 0)), np.full((2, 5), np.nan), np.full((2, 5), np.inf)],
    )
    def test_refuses_what_cannot_be_resampled(self, correct: Array) -> None:
        with pytest.raises(ValueError, match=r"resampled|2-D"):
            draw_accuracy(correct, draws=10, seed=0)


class TestDrawLatency:
    def medians(self, rounds: int = 25, variants: int = 3) -> Array:
        return np.random.default_rng(0).lognormal(0.0, 0.1, (rounds, variants))

    def test_every_draw_is_the_median_of_resampled_rounds(self) -> None:
        """With distinct values in an odd number of rounds the median is one of them."""
        medians = self.medians()
        drawn = draw_latency(medians, draws=600, seed=1)
        assert drawn.shape == (600, 3)
        for variant in range(3):
            assert set(drawn[:, variant]) <= set(medians[:, variant])
            assert len(set(drawn[:, variant])) > 5
        np.testing.assert_allclose(drawn.mean(axis=0), np.median(medians, axis=0), rtol=0.05)

    def test_rounds_are_resampled_together(self) -> None:
        medians = self.medians(variants=1)
        drawn = draw_latency(np.hstack([medians, 2 * medians]), draws=300, seed=2)
        np.testing.assert_allclose(drawn[:, 1], 2 * drawn[:, 0])

    def test_a_variant_that_stopped_early_is_drawn_from_its_own_rounds(self) -> None:
        medians = self.medians()
        medians[10:, 1] = np.nan
        drawn = draw_latency(medians, draws=600, seed=3)
        assert np.all(np.isfinite(drawn))
        assert drawn[:, 1].min() >= np.nanmin(medians[:, 1])
        assert drawn[:, 1].max() <= np.nanmax(medians[:, 1])

    def test_a_draw_without_any_round_of_a_variant_takes_its_overall_median(self) -> None:
        medians = np.ones((4, 2))
        medians[1:, 1] = np.nan
        medians[0, 1] = 7.0
        assert np.all(draw_latency(medians, draws=300, seed=4)[:, 1] == 7.0)

    def test_the_seed_decides(self) -> None:
        first, again, other = (draw_latency(self.medians(), draws=300, seed=seed) for seed in (6, 6, 7))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize(
        "medians", [np.ones(5), np.ones((0, 2)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)]
    )
    def test_refuses_what_cannot_be_resampled(self, medians: Array) -> None:
        with pytest.raises(ValueError, match=r"resampled|2-D"):
            draw_latency(medians, draws=10, seed=0)
