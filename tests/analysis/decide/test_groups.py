from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.analysis.results import Results, RunInfo
from quant_explorer.core.settings.groups import DecisionRules, MeasurementProtocol, Settings
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.replayed import BASELINE, ranked

FAST = Played("fast", slowness=0.5, wrong=80, size_bytes=300_000)
# Noise of calls leaves about 0.3 % to the ratio of two variants.
NOISY = Scene(noise=0.02)


def groups(results: Results) -> dict[str, str]:
    grouped = [variant for variant in results.variants if variant.frontier.group]
    return {variant.config: variant.frontier.group.removesuffix("@eager") for variant in grouped}


def with_rules(rules: DecisionRules) -> RunInfo:
    return RunInfo(Settings(data="toy"), MeasurementProtocol(batch_sizes=(1, 8)), rules=rules)


def test_what_nothing_separates_is_stood_for_by_the_smallest(tmp_path: Path) -> None:
    # One image more of 400, the same time, 5 % smaller.
    small = Played("small", slowness=0.5005, wrong=79, size_bytes=285_000)
    accurate = Played("accurate", slowness=0.499, wrong=78, size_bytes=300_100)
    found = groups(ranked(tmp_path, (BASELINE, small, accurate), NOISY))
    assert found == {"fp32_baseline": "fp32_baseline", "small": "small", "accurate": "small"}


def test_of_equal_sizes_the_simplest_recipe_stands_for_the_group(tmp_path: Path) -> None:
    tuned = Played(
        "tuned", slowness=0.5, wrong=79, size_bytes=299_000, steps=("static_int8()", "fine_tune()")
    )
    simple = Played("simple", slowness=0.5, wrong=78, size_bytes=300_000, steps=("static_int8()",))
    found = groups(ranked(tmp_path, (BASELINE, tuned, simple), NOISY))
    assert {found["tuned"], found["simple"]} == {"simple"}


@pytest.mark.parametrize(
    "apart",
    [
        Played("apart", slowness=0.4, wrong=80, size_bytes=330_000),
        Played("apart", slowness=0.55, wrong=40, size_bytes=330_000),
        Played("apart", slowness=0.55, wrong=80, size_bytes=250_000),
    ],
    ids=["faster", "more accurate", "smaller"],
)
def test_a_measured_advantage_is_a_choice_of_its_own(tmp_path: Path, apart: Played) -> None:
    found = groups(ranked(tmp_path, (BASELINE, FAST, apart)))
    assert (found["fast"], found["apart"]) == ("fast", "apart")


@pytest.mark.parametrize(("epsilon", "count"), [(0.0, 2), (0.2, 1)])
def test_latencies_within_epsilon_tie(tmp_path: Path, epsilon: float, count: int) -> None:
    near = Played("near", slowness=0.45, wrong=80, size_bytes=330_000)
    run = with_rules(DecisionRules(epsilon_latency=epsilon))
    found = groups(ranked(tmp_path, (BASELINE, FAST, near), run=run))
    assert len({found["fast"], found["near"]}) == count


def test_off_the_frontier_there_is_no_group(tmp_path: Path) -> None:
    beaten = Played("beaten", slowness=0.6, wrong=90, size_bytes=400_000)
    assert "beaten" not in groups(ranked(tmp_path, (BASELINE, FAST, beaten)))
