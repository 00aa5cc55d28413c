from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quant_explorer.analysis.results import Answer
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.groups import DecisionRules
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.replayed import BASELINE, RUN, ranked

INT8 = Played("static_int8_per_tensor", slowness=0.25, wrong=40, size_bytes=250_000, int8_macs=990)
SERVED = Played("fp32_baseline", slowness=0.5, wrong=40, runtime="served")
WIDE = replace(RUN, rules=DecisionRules(margin_pp=2.0))


def answered(folder: Path, *played: Played, scene: Scene | None = None) -> Answer:
    (answer,) = ranked(folder, (BASELINE, *played), scene, WIDE).answers
    return answer


def test_the_fastest_within_the_margin_is_shipped(tmp_path: Path) -> None:
    lossy = replace(INT8, config="lossy", slowness=0.1, wrong=60)
    answer = answered(tmp_path, INT8, lossy, SERVED)
    assert (answer.names, answer.reason) == (("static_int8_per_tensor@eager",), "")


def test_fp32_in_a_better_runtime_is_not_hidden_behind_int8_that_is_as_fast(tmp_path: Path) -> None:
    as_fast = replace(INT8, slowness=0.501, runtime="served")
    answer = answered(tmp_path, as_fast, SERVED, scene=Scene(noise=0.02))
    assert answer.names == ("fp32_baseline@served", "static_int8_per_tensor@served")
    assert answer.reason.startswith(
        "no compressed variant within 2 pp is measurably faster; the fastest of them, "
        "static_int8_per_tensor@served, is "
    )
    assert answer.reason.endswith("] times as fast, at 0.25 of the size")


def test_where_what_is_fast_loses_too_much_fp32_is_shipped_with_the_reason(tmp_path: Path) -> None:
    answer = answered(tmp_path, replace(INT8, wrong=80), SERVED)
    assert answer.names == ("fp32_baseline@served",)
    assert answer.reason.startswith(
        "no compressed variant is shown to be within 2 pp: static_int8_per_tensor"
    )
    assert "accuracy drop: 13." in answer.reason


def test_a_control_that_is_as_fast_is_not_shipped_for_the_baseline(tmp_path: Path) -> None:
    control = replace(SERVED, config="fp32_finetune", slowness=0.4995, wrong=39)
    answer = answered(tmp_path, control, SERVED, scene=Scene(noise=0.02))
    assert answer.names == ("fp32_baseline@served", "fp32_finetune@served")


def test_fp32_alone_is_what_there_is(tmp_path: Path) -> None:
    answer = answered(tmp_path, SERVED)
    assert (answer.names, answer.reason) == (("fp32_baseline@served",), "no compressed variant was measured")


def test_without_a_measured_variant_there_is_nothing_to_ship(tmp_path: Path) -> None:
    died = replace(BASELINE, status=Status.DIED, reason="killed")
    (answer,) = ranked(tmp_path, (died,)).answers
    assert (answer.names, answer.reason) == ((), "no variant was measured")
