import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from quant_explorer.core.contracts import Runtime
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.progress import Progress
from quant_explorer.machine.peaks import kept
from quant_explorer.machine.topology import available_cores
from quant_explorer.pipeline.doctor import diagnosis
from quant_explorer.pipeline.doctor.diagnosis import Fact
from quant_explorer.runtimes import RUNTIMES
from tests.cli.invoking import Place

Invoke = Callable[..., tuple[int, str]]


def test_doctor_says_what_this_machine_is(invoke: Invoke) -> None:
    code, printed = invoke("doctor", "--quick", "--json")
    assert code == 0
    facts = {fact["what"]: fact for fact in json.loads(printed)}
    assert torch.__version__.startswith(facts["version of torch"]["finding"])
    assert facts["cores"]["finding"] == str(available_cores())
    assert facts["runtime eager"]["finding"] == "available"
    assert facts["INT8 dot products"]["finding"] in ("in hardware", "none")
    engines = [fact for fact in facts if fact.startswith("engine ")]
    assert sum("(default)" in engine for engine in engines) == 1


def test_doctor_is_a_table_without_json(invoke: Invoke) -> None:
    code, printed = invoke("doctor", "--quick")
    assert code == 0
    assert "instruction sets" in printed


def test_doctor_measures_peaks_when_asked(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(threads: int, progress: Progress, folder: Path) -> Peaks:
        return Peaks(threads, {"fp32": 50.0}, 10.0)

    monkeypatch.setattr(kept, "measure_and_keep", measure)
    code, printed = invoke("doctor", "--quick", "--peaks", "--threads", "2", "--json")
    assert code == 0
    facts = {fact["what"]: fact for fact in json.loads(printed)}
    assert facts["peak fp32"]["finding"] == "50.0 GMAC/s"
    assert facts["memory bandwidth"]["why"].endswith("2 threads")
    assert invoke("doctor", "--threads", "0")[0] == 2


def test_int8_is_measured_on_the_runtimes_that_are_named(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def expect(runtimes: Mapping[str, type[Runtime]], threads: int, progress: Progress) -> tuple[Fact, ...]:
        asked.append((tuple(runtimes), threads))
        return (Fact("INT8 on all", "2 times as fast"),)

    monkeypatch.setattr(diagnosis, "expect_int8", expect)
    code, printed = invoke("doctor", "--runtime", "openvino", "--runtime", "eager", "--threads", "2")
    assert code == 0
    assert "2 times as fast" in printed
    assert {name for name in RUNTIMES if f"runtime {name}" in printed} == {"openvino", "eager"}
    assert invoke("doctor")[0] == 0
    assert asked == [(("openvino", "eager"), 2), (tuple(RUNTIMES), 1)]
    code, printed = invoke("doctor", "--runtime", "opnvino")
    assert code == 2
    assert "openvino" in printed


@pytest.mark.slow
def test_what_a_library_prints_stays_off_the_screen(place: Place) -> None:
    reason = RUNTIMES["onnxruntime"]().unavailable()
    if reason:
        pytest.skip(reason)
    done = place.call("doctor", "--runtime", "onnxruntime", "--json")
    assert done.returncode == 0, done.stderr
    facts = {fact["what"]: fact for fact in json.loads(done.stdout)}
    assert "times as fast as FP32 [" in facts["INT8 on onnxruntime"]["finding"]
    # The quantizer prints what it collects.
    assert done.stderr == "Measuring INT8: done onnxruntime\n"
