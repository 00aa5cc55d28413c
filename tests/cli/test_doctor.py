import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from quant_explorer.core.progress import Progress
from quant_explorer.core.roofline import Peaks
from quant_explorer.machine import kept_peaks

Invoke = Callable[..., tuple[int, str]]


def test_doctor_says_what_will_be_fast_and_why(invoke: Invoke) -> None:
    code, printed = invoke("doctor", "--json")
    assert code == 0
    facts = {fact["what"]: fact for fact in json.loads(printed)}
    assert torch.__version__.startswith(facts["version of torch"]["finding"])
    assert facts["cores"]["finding"] == str(len(psutil.Process().cpu_affinity()))
    assert facts["runtime eager"]["finding"] == "available"
    assert facts["INT8 dot products"]["finding"] in ("in hardware", "none")
    engines = [fact for fact in facts if fact.startswith("engine ")]
    assert sum("(default)" in engine for engine in engines) == 1


def test_doctor_is_a_table_without_json(invoke: Invoke) -> None:
    code, printed = invoke("doctor")
    assert code == 0
    assert "instruction sets" in printed


def test_doctor_measures_peaks_when_asked(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(threads: int, progress: Progress, folder: Path) -> Peaks:
        return Peaks(threads, {"fp32": 50.0}, 10.0)

    monkeypatch.setattr(kept_peaks, "measure_and_keep", measure)
    code, printed = invoke("doctor", "--peaks", "--threads", "2", "--json")
    assert code == 0
    facts = {fact["what"]: fact for fact in json.loads(printed)}
    assert facts["peak fp32"]["finding"] == "50.0 GMAC/s"
    assert facts["memory bandwidth"]["why"].endswith("2 threads")
    assert invoke("doctor", "--threads", "0")[0] == 2
