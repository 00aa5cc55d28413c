"""A runtime whose libraries are not installed is a reason everywhere, and an error nowhere."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.cli.invoking import QUICK, SMALL, Invoke, Place

REASON = "openvino not installed: pip install 'quant-explorer[openvino]'"
MODEL = """
from torch import nn

def make(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, num_classes))
"""


@pytest.fixture(autouse=True)
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.metadata.distributions
    # Not `installed_version`: a module that is imported meanwhile would keep what stands in for it.
    monkeypatch.setattr(
        importlib.metadata,
        "distributions",
        lambda **sought: () if sought.get("name") == "openvino" else found(**sought),
    )


def test_list_and_doctor_say_what_to_install(invoke: Invoke) -> None:
    code, printed = invoke("list", "--json")
    assert code == 0
    (row,) = (row for row in json.loads(printed) if (row["kind"], row["name"]) == ("runtime", "openvino"))
    assert REASON in row["what"]
    code, printed = invoke("doctor", "--quick", "--json")
    assert code == 0
    (fact,) = (fact for fact in json.loads(printed) if fact["what"] == "runtime openvino")
    assert REASON in fact["finding"] + fact["why"]


@pytest.mark.slow
def test_the_report_has_it_with_the_reason_and_the_others_are_measured(invoke: Invoke, place: Place) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
    (place.folder / "mine.py").write_text(MODEL)
    safetensors.torch.save_file(model.state_dict(), place.folder / "mine.safetensors")
    own = ("--model", "mine.py:make", "--weights", "mine.safetensors", "--config", "static_int8_per_channel")
    runtimes = ("--runtime", "openvino", "--runtime", "onnxruntime")
    code, printed = invoke("evaluate", *own, *runtimes, *SMALL, *QUICK, "--run-dir", "run")
    assert code == 0
    assert REASON in printed
    report = place.folder / "run" / "report"
    found = {
        variant["name"]: variant
        for variant in json.loads((report / "full_results.json").read_bytes())["variants"]
    }
    assert {name: variant["status"] for name, variant in found.items()} == {
        "fp32_baseline@eager": "ok",
        "fp32_baseline@openvino": "unsupported",
        "static_int8_per_channel@onnxruntime": "ok",
    }
    assert found["fp32_baseline@openvino"]["reason"] == REASON
    assert REASON in (report / "pareto.md").read_text()
