from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from quant_explorer.core.settings.groups import DecisionRules
from quant_explorer.report.answer import describe_answer
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.replayed import BASELINE, RUN, ranked

SERVED = Played("fp32_baseline", slowness=0.5, wrong=40, runtime="served")
INT8 = Played("int8", 0.125, wrong=40, size_bytes=250_000, runtime="served", int8_macs=990)
WIDE = replace(RUN, rules=DecisionRules(margin_pp=2.0))


def answer(folder: Path, *played: Played, trained: bool = True, rounds: int = 12) -> str:
    scene = Scene(trained=trained, rounds=rounds)
    return describe_answer(ranked(folder, (BASELINE, *played), scene, WIDE), "small_cnn")


def test_the_runtime_s_part_and_quantization_s_stand_side_by_side(tmp_path: Path) -> None:
    text = answer(tmp_path, SERVED, INT8)
    assert re.sub(r"(\d\.\d+) \[[\d., ]+\]", r"\1", text) == (
        "Ship int8@served: 8.00 times as fast as your FP32 in PyTorch, of which served 2.00 and INT8 4.00; "
        "0.25 of its size; accuracy within 2 pp, 0.00 [-0.95, +0.95]. Accuracy was judged on the report "
        "split (the study does not hold each variant's predictions of the search split)."
    )


def test_the_split_that_decided_is_named(tmp_path: Path) -> None:
    results = ranked(tmp_path, (BASELINE, SERVED, INT8), Scene(search_images=800), WIDE)
    assert describe_answer(results, "small_cnn").endswith(
        "Accuracy was judged on the search split (800 images)."
    )


def test_pruning_is_named_beside_the_precision(tmp_path: Path) -> None:
    text = answer(tmp_path, SERVED, replace(INT8, steps=("prune(amount=0.5)",)))
    assert "and pruning and INT8 4.00" in text


def test_fp32_that_stays_says_why(tmp_path: Path) -> None:
    text = answer(tmp_path, replace(INT8, wrong=80))
    assert text.startswith(
        "Ship fp32_baseline@eager, your FP32 as it is: no compressed variant is shown to be"
    )


def test_a_model_without_accuracy_is_described_by_its_agreement(tmp_path: Path) -> None:
    text = answer(tmp_path, SERVED, INT8, trained=False)
    assert "the class that FP32 gives for 100.00 [99.05, 100.00] % of the images." in text


def test_what_was_not_timed_is_not_shipped(tmp_path: Path) -> None:
    assert answer(tmp_path, INT8, rounds=0) == (
        "Nothing to ship: nothing was timed at batch size 1 yet (`quant-explorer bench` does that)."
    )


def test_results_of_an_earlier_version_have_no_answer(tmp_path: Path) -> None:
    earlier = replace(ranked(tmp_path, (BASELINE,)), answers=())
    assert "`quant-explorer report`" in describe_answer(earlier, "small_cnn")
