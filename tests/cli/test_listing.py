import json
from collections.abc import Callable

from quant_explorer.datasets import SOURCES
from quant_explorer.models import MODELS
from quant_explorer.pipeline.plan.space import CONFIGURATIONS
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.techniques import TECHNIQUES

Invoke = Callable[..., tuple[int, str]]


def test_list_names_all_that_is_registered(invoke: Invoke) -> None:
    code, printed = invoke("list", "--json")
    assert code == 0
    rows = json.loads(printed)
    assert all(row["what"] for row in rows)
    registered = {
        "configuration": [*CONFIGURATIONS],
        "data set": [*SOURCES],
        "runtime": [*RUNTIMES],
        "technique": [*TECHNIQUES],
    }
    for kind, names in registered.items():
        assert [row["name"] for row in rows if row["kind"] == kind] == names
    models = [row["name"] for row in rows if row["kind"] == "model"]
    own = [
        "path/to/file.py:function",
        "package.module:function",
        "torchvision:NAME",
        "timm:NAME",
        "path/to/file.pt2",
        "path/to/file.onnx",
    ]
    assert models == [*MODELS, *own]


def test_list_is_a_table_without_json(invoke: Invoke) -> None:
    code, printed = invoke("list")
    assert code == 0
    assert "static_int8_per_channel" in printed
