import json

import numpy as np
import pytest
from torch import nn

from quant_explorer.runtimes import RUNTIMES
from quant_explorer.runtimes.onnx_graph.export import export_onnx
from tests.cli.invoking import Invoke, Place

MODEL = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
"""


@pytest.fixture
def asked(place: Place) -> tuple[str, ...]:
    """An inspection of a user's own model."""
    (place.folder / "mine.py").write_text(MODEL)
    return ("inspect", "--data", "mnist5k", "--model", "mine.py:make")


def test_it_shows_layers_and_what_each_runtime_does(
    invoke: Invoke, place: Place, asked: tuple[str, ...]
) -> None:
    code, printed = invoke(*asked, "--float-layer", "3")
    assert code == 0, printed
    assert "27,090 parameters, 51,376 MACs for an image of 1 x 28 x 28" in printed
    assert "- 3: in float on all runtimes: named by --float-layer" in printed
    assert "- 0: in float on inductor: AOTInductor" in printed
    assert not (place.folder / "runs").exists()


def test_its_figures_are_the_same_as_json(invoke: Invoke, asked: tuple[str, ...]) -> None:
    code, printed = invoke(*asked, "--json", "-q", "--runtime", "eager,inductor")
    assert code == 0
    first, second = json.loads(printed)
    assert (first["layer"], first["macs"], first["parameters"]) == ("3", 27_040, 27_050)
    assert first["runtimes"] == {
        name: {"decision": "int8", "reason": ""} for name in RUNTIMES if name in ("eager", "inductor")
    }
    assert second["runtimes"]["inductor"]["decision"] == "float"


def test_an_onnx_file_has_layers_too(invoke: Invoke, place: Place) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
    image = np.zeros((1, 1, 28, 28), np.float32)
    (place.folder / "mine.onnx").write_bytes(export_onnx(model.eval(), image))
    code, printed = invoke("inspect", "--data", "mnist5k", "--model", "mine.onnx")
    assert code == 0, printed
    assert "27,090 parameters, 51,376 MACs for an image of 1 x 28 x 28" in printed
    assert "onnxruntime, openvino" in printed
    assert "- eager refuses it: the model is an ONNX file" in printed
