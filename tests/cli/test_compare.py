"""`compare` on recorded runs with a known truth, and on the committed ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import ORDINARY
from tests.cli.invoking import Invoke

RESULTS = Path(__file__).parents[2] / "results"


def test_two_runs_of_one_model_compare(invoke: Invoke, tmp_path: Path) -> None:
    baseline, dynamic, per_tensor, per_channel = ORDINARY
    play(tmp_path / "a" / "study.jsonl", ORDINARY)
    changed = (
        baseline,
        replace(dynamic, wrong=0),
        replace(per_tensor, wrong=200),
        replace(per_channel, slowness=0.8, size_bytes=2 * per_channel.size_bytes),
    )
    play(tmp_path / "b" / "study.jsonl", changed, Scene(seed=1))
    code, printed = invoke("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert code == 0
    found = {variant["name"]: variant for variant in json.loads(printed)["variants"]}
    assert {variant["images"] for variant in found.values()} == {400}
    judged = {name.removesuffix("@eager"): (row["quality"], row["speed"]) for name, row in found.items()}
    assert judged == {
        baseline.config: ("tie", "tied"),
        dynamic.config: ("gain", "tied"),
        per_tensor.config: ("loss", "tied"),
        per_channel.config: ("tie", "slower"),
    }
    assert found["static_int8_per_channel@eager"]["size_ratio"] == 2.0


def test_committed_runs_of_one_model_compare(invoke: Invoke) -> None:
    code, printed = invoke(
        "compare", RESULTS / "cifar10-jpeg", RESULTS / "cifar10-sweep" / "seed-0", "--json"
    )
    assert code == 0
    found = {variant["name"]: variant for variant in json.loads(printed)["variants"]}
    assert found["fp32_baseline@onnxruntime"]["size_ratio"] == 1.0
    assert found["fp32_baseline@onnxruntime"]["images"] == 10_000


def test_other_environments_and_what_one_run_lacks_are_named(invoke: Invoke, tmp_path: Path) -> None:
    other = Played("fp32_baseline", model="resnet18")
    play(tmp_path / "a" / "study.jsonl", (*ORDINARY, other))
    play(tmp_path / "b" / "study.jsonl", ORDINARY, Scene("env-b"))
    code, printed = invoke("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "CPU CPU of env-a there, CPU of env-b here" in printed
    assert "Measured in A alone: fp32_baseline@eager (resnet18)" in printed
