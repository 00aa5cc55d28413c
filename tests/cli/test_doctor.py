import json
from collections.abc import Callable

import psutil
import torch

Invoke = Callable[..., tuple[int, str]]


def test_doctor_says_what_will_be_fast_and_why(invoke: Invoke) -> None:
    code, printed = invoke("doctor", "--json")
    assert code == 0
    facts = {fact["what"]: fact for fact in json.loads(printed)}
    assert torch.__version__.startswith(facts["version of torch"]["finding"])
    assert facts["cores"]["finding"] == str(len(psutil.Process().cpu_affinity()))
    assert facts["runtime eager"]["finding"] == "available"
    for precision in ("INT8", "BF16", "FP16"):
        assert facts[precision]["why"]
    engines = [fact for fact in facts if fact.startswith("engine ")]
    assert sum("(default)" in engine for engine in engines) == 1


def test_doctor_is_a_table_without_json(invoke: Invoke) -> None:
    code, printed = invoke("doctor")
    assert code == 0
    assert "instruction sets" in printed
