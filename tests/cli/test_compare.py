from __future__ import annotations

import json
from pathlib import Path

from tests.cli.invoking import Invoke

RESULTS = Path(__file__).parents[2] / "results"


def test_two_committed_runs_of_one_model_compare(invoke: Invoke) -> None:
    code, printed = invoke(
        "compare", RESULTS / "cifar10-jpeg", RESULTS / "cifar10-sweep" / "seed-0", "--json"
    )
    assert code == 0
    found = {variant["name"]: variant for variant in json.loads(printed)["variants"]}
    # The sweep trained its control with another rate, and from the labels and the network before.
    assert (found["fp32_finetune@eager"]["quality"], found["fp32_finetune@eager"]["images"]) == (
        "gain",
        10_000,
    )
    assert found["fp32_baseline@onnxruntime"]["size_ratio"] == 1.0
    assert found["fp32_baseline@onnxruntime"]["speed"] == "tied"


def test_other_environments_are_named(invoke: Invoke) -> None:
    code, printed = invoke("compare", RESULTS / "cifar10-jpeg" / "multi", RESULTS / "cifar10-jpeg")
    assert code == 0
    assert "Other environments, A there and B here: executorch not recorded there, 1.5.1 here" in printed
    assert "Measured in A alone: fp32_baseline@eager (mobilenet_v3_large)" in printed
