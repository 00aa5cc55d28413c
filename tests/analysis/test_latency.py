from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from quant_explorer.analysis.latency import NOT_TIMED, check_twins, collect_timings, latency_of
from quant_explorer.core.measurement import Block, Round, TimingEnd, twin_key
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.replayed import BASELINE, ORDINARY, of, ranked


def rounds(durations: Sequence[Mapping[str, tuple[int, ...]]], group: str = "all") -> list[Round]:
    return [
        Round("env", group, 1, number, (tuple(Block(key, calls) for key, calls in calls_by_key.items()),))
        for number, calls_by_key in enumerate(durations)
    ]


def test_point_is_the_median_of_the_rounds_medians() -> None:
    # Pooled, the calls of the first round would outnumber the others: their median is 1 ms.
    calls = [(1_000_000,) * 9, (3_000_000,), (3_000_000,)]
    timings = collect_timings(rounds([{"base": call} for call in calls]), "base", ["base"])
    latency = latency_of(timings, "base", None, settled=False)
    assert latency.p50_s == pytest.approx(3e-3)
    assert latency.mean_s == pytest.approx(7e-3 / 3)
    assert (latency.calls, latency.rounds) == (11, 3)


def test_speedup_is_paired_within_rounds() -> None:
    # The machine slows down threefold from round to round; the ratio stays at 2.
    levels = [3**number for number in range(8)]
    timed = rounds([{"base": (2000 * level,), "fast": (1000 * level,)} for level in levels])
    latency = latency_of(collect_timings(timed, "base", ["base", "fast"]), "fast", "base", settled=False)
    assert latency.speedup == pytest.approx(2.0)
    assert latency.speedup_ci is not None
    assert latency.speedup_ci.half_width < 1e-9
    assert latency.speedup_same_runtime == pytest.approx(2.0)


def test_a_settled_variant_compares_with_those_timed_longer() -> None:
    # The machine gets twice as slow after the early rounds, in which alone "early" was timed.
    timed = rounds([{"base": (1000,), "early": (900,)}] * 4 + [{"base": (2000,)}] * 8)
    timings = collect_timings(timed, "base", ["base", "early"])
    early = latency_of(timings, "early", None, settled=True)
    base = latency_of(timings, "base", None, settled=False)
    assert base.p50_s == pytest.approx(2000e-9)
    assert early.p50_s == pytest.approx(0.9 * 2000e-9)
    assert early.settled
    assert early.rounds == 4


def test_rounds_against_variants_that_were_made_again_count_no_more() -> None:
    """Unless the baseline has no others, as when it alone is asked for again."""
    older = rounds([{"base": (4000,), twin_key("base"): (4000,), "before": (900,)}] * 4, group="older")
    newer = rounds([{"base": (1000,), twin_key("base"): (1000,), "after": (500,)}] * 4, group="newer")
    timings = collect_timings([*older, *newer], "base", ["base", "after"])
    assert [check.group for check in check_twins(timings, "m", 1, [])] == ["newer"]
    assert timings.baseline_p50_s == pytest.approx(1000e-9)
    alone = collect_timings(older, "base", ["base"])
    assert alone.groups == ("older",)
    assert alone.baseline_p50_s == pytest.approx(4000e-9)


def test_a_slow_moment_of_the_baseline_is_nobody_elses() -> None:
    """One factor brings a variant's calls to the level of all rounds, and not one for each of its rounds."""
    base = [1000, 4000, 1000, 1000]
    timed = rounds(
        [{"base": (time,)} | ({"early": (500,) * 3} if n < 3 else {}) for n, time in enumerate(base)]
    )
    timings = collect_timings(timed, "base", ["base", "early"])
    early = latency_of(timings, "early", None, settled=True)
    assert early.p50_s == early.mean_s == pytest.approx(500e-9)
    assert np.concatenate(timings.calls_s("early")).tolist() == pytest.approx([500e-9] * 9)


def test_nothing_is_scaled_when_all_were_timed_in_every_round() -> None:
    timed = rounds([{"base": (1000 + number,), "other": (500 + number,)} for number in range(9)])
    timings = collect_timings(timed, "base", ["base", "other"])
    assert latency_of(timings, "other", None, settled=False).p50_s == pytest.approx(504e-9)


@pytest.mark.parametrize(("calls", "missing"), [(130, {"p95_s", "p99_s"}), (131, {"p99_s"}), (663, set())])
def test_percentiles_need_enough_calls(calls: int, missing: set[str]) -> None:
    timed = rounds([{"base": tuple(range(1000, 1000 + calls))}])
    latency = latency_of(collect_timings(timed, "base", ["base"]), "base", None, settled=False)
    assert {name for name in ("p95_s", "p99_s") if getattr(latency, name) is None} == missing
    assert {name for name in latency.reasons if name.startswith("p9")} == missing


def test_one_round_has_a_point_and_no_interval() -> None:
    timings = collect_timings(rounds([{"base": (1000,), "one": (500,)}]), "base", ["base", "one"])
    latency = latency_of(timings, "one", "base", settled=False)
    assert latency.p50_s == pytest.approx(5e-7)
    assert latency.p50_ci_s is None
    assert latency.speedup is None
    assert "at least 2 rounds" in latency.reasons["speedup"]


def test_a_variant_that_was_not_timed_has_reasons_only() -> None:
    timings = collect_timings(rounds([{"base": (1000,)}]), "base", ["base", "never"])
    latency = latency_of(timings, "never", None, settled=False)
    assert latency.p50_s is None
    assert set(latency.reasons.values()) == {NOT_TIMED}


def test_speedup_of_the_same_runtime_is_a_figure_of_its_own(tmp_path: Path) -> None:
    served = (
        Played("fp32_baseline", slowness=0.5, runtime="served"),
        Played("static_int8_per_tensor", slowness=0.1, runtime="served", int8_macs=1000),
    )
    results = ranked(tmp_path, (BASELINE, *served))
    fast = of(results, "static_int8_per_tensor").latency["1"]
    assert fast.speedup == pytest.approx(10, rel=0.02)
    assert fast.speedup_same_runtime == pytest.approx(5, rel=0.02)


def test_variants_of_different_groups_compare_through_the_baseline(tmp_path: Path) -> None:
    """The second group runs at half the speed of the first, as a machine may, and was never timed with it."""
    served = (
        Played("fp32_baseline", slowness=0.5, runtime="served"),
        Played("static_int8_per_tensor", slowness=0.1, runtime="served", int8_macs=1000, group="later"),
    )
    fast = of(ranked(tmp_path, (BASELINE, *served)), "static_int8_per_tensor").latency["1"]
    assert fast.speedup_same_runtime == pytest.approx(5, rel=0.02)
    assert fast.speedup_same_runtime_ci is not None
    assert fast.speedup_same_runtime_ci.half_width < 0.1


def test_a_runtime_without_fp32_says_so(tmp_path: Path) -> None:
    results = ranked(tmp_path, (BASELINE, Played("alone", runtime="served")))
    alone = of(results, "alone").latency["1"]
    assert alone.speedup_same_runtime is None
    assert alone.reasons["speedup_same_runtime"] == "this runtime has no FP32 baseline"


@pytest.mark.parametrize(("twin", "separable"), [(1.0, False), (1.05, True), (0.95, True)])
def test_a_twin_is_separable_when_its_ratio_excludes_one(
    tmp_path: Path, twin: float, separable: bool
) -> None:
    results = ranked(tmp_path, ORDINARY, Scene(twin=twin))
    assert [check.separable for check in results.aa] == [separable, separable]
    assert [check.batch_size for check in results.aa] == [1, 8]
    assert results.aa[0].ratio == pytest.approx(1 / twin, rel=0.01)
    assert {check.stopped_by for check in results.aa} == {"precision"}


def test_a_missing_twin_or_end_is_a_reason() -> None:
    timings = collect_timings(rounds([{"base": (1000,)}] * 5), "base", ["base"])
    (check,) = check_twins(timings, "m", 1, [TimingEnd("env", "all", 8, "base", "precision")])
    assert check.separable is None
    assert set(check.reasons) == {"ratio", "ratio_ci", "separable", "stopped_by"}
    assert twin_key("base") in timings.contrasts
