"""Contrasts of blocks with the reference's blocks near them."""

from __future__ import annotations

import numpy as np
import pytest

from quant_explorer.stats.contrasts import NEAR, log_contrasts


def test_a_block_compares_with_the_median_of_the_reference_near_it() -> None:
    keys = ["base", "a", "base", "b", "base", "c"]
    times = np.array([1.0, 8.0, 2.0, 8.0, 4.0, 8.0])
    found = log_contrasts(keys, times, "base", near=1)
    # Between two of the reference by their geometric mean, after the last by that one.
    assert found == pytest.approx(
        {"base": 0.0, "a": np.log(8 / np.sqrt(2)), "b": np.log(8 / np.sqrt(8)), "c": np.log(2)}
    )
    # With more on each side, all three are near every block: one that was spoiled changes nothing.
    spoiled = np.where(np.arange(6) == 0, 100.0, times)
    for seconds, median in ((times, 2.0), (spoiled, 4.0)):
        found = log_contrasts(keys, seconds, "base")
        assert found == pytest.approx({"base": 0.0} | dict.fromkeys("abc", np.log(8 / median)))


def test_what_is_far_away_in_time_does_not_count() -> None:
    keys = ["base", "a"] * 20
    slow_half = np.where(np.arange(40) < 20, 1.8, 1.0)
    keys[1], keys[-1] = "early", "late"
    times = np.array([1.0 if key == "base" else 2.0 for key in keys]) * slow_half
    found = log_contrasts(keys, times, "base")
    assert found["early"] == pytest.approx(np.log(2))
    assert found["late"] == pytest.approx(np.log(2))
    assert NEAR < 10


def test_several_blocks_of_one_key_count_as_their_mean_and_no_reference_gives_nothing() -> None:
    found = log_contrasts(["a", "base", "a"], np.array([2.0, 1.0, 8.0]), "base")
    assert found == pytest.approx({"base": 0.0, "a": np.log(4)})
    assert log_contrasts(["a", "b"], np.array([1.0, 2.0]), "base") == {}


@pytest.mark.parametrize("times", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_times_that_are_none_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="need a positive time for each of 2 blocks"):
        log_contrasts(["base", "a"], np.array(times), "base")


def test_the_reference_near_withstands_modes_that_switch_within_a_pass() -> None:
    """Two variants of a long pass are seldom in one mode of the machine; a block and those near it are."""
    rng = np.random.default_rng(0)
    rounds, passes = 200, 6
    near, apart = np.empty((rounds, passes)), np.empty((rounds, passes))
    for place in np.ndindex(near.shape):
        order = rng.permutation([f"other {number}" for number in range(38)] + ["a", "b"]).tolist()
        keys = [key for start in range(0, 40, 2) for key in ("base", *order[start : start + 2])] + ["base"]
        slow = np.logical_xor.accumulate(rng.random(len(keys)) < 1 / 40)
        times = np.where(slow, 1.8, 1.0) * np.exp(rng.normal(0, 0.01, len(keys)))
        contrasts = log_contrasts(keys, times, "base")
        near[place] = contrasts["a"] - contrasts["b"]
        apart[place] = np.log(times[keys.index("a")] / times[keys.index("b")])
    spread_near, spread_apart = (np.median(found, axis=1).std() for found in (near, apart))
    assert spread_near < 0.03
    assert spread_apart > 3 * spread_near
