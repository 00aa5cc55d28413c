"""A user's own model from its file to the answer, where PyTorch's tracers differ in what they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.report.render import load_results
from tests.cli.invoking import EAGER, ONNX, QUICK, SMALL, Invoke, Place

pytestmark = pytest.mark.slow
CONFIGS = ("--config", "fp32_baseline", "--config", "static_int8_per_channel")
MODELS = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2)
        self.head = nn.Linear(8 * 13 * 13, num_classes)

    def forward(self, images):
        return self.head(torch.relu(self.stem(images)).flatten(1))

class Checked(Small):
    def forward(self, images):
        if not isinstance(images, torch.Tensor):
            raise TypeError("no images")
        return super().forward(images)

class Choosing(Small):
    def forward(self, images):
        if images.mean() > 0:
            images = 2 * images
        return super().forward(images)
"""


@pytest.fixture
def models(place: Place) -> Path:
    path = place.folder / "mine.py"
    path.write_text(MODELS)
    return path


def test_a_model_that_only_torch_export_takes_is_ranked_against_its_eager_fp32(
    invoke: Invoke, place: Place, models: Path
) -> None:
    options = (*EAGER, *ONNX, *CONFIGS, *SMALL, *QUICK, "--epochs", "1", "--run-dir", "run")
    code, printed = invoke("pipeline", "--model", "mine.py:Checked", *options)
    assert code == 0, printed
    results = load_results(place.folder / "run" / "report" / "full_results.json")
    found = {variant.name: variant for variant in results.variants}
    assert found["fp32_baseline@eager"].size.ratio == 1.0
    (note,) = found["fp32_baseline@eager"].notes
    assert note.startswith("FP32 is the program that torch.export makes: the model cannot be traced")
    assert found["static_int8_per_channel@onnxruntime"].latency["1"].speedup is not None
    assert found["fp32_baseline@onnxruntime"].frontier.on_frontier is not None
    assert results.answers[0].baseline == "fp32_baseline@eager"


def test_a_model_that_no_tracer_takes_fails_with_the_line(invoke: Invoke, models: Path) -> None:
    options = (*EAGER, *ONNX, *CONFIGS, *SMALL, *QUICK, "--epochs", "1", "--run-dir", "run")
    code, printed = invoke("pipeline", "--model", "mine.py:Choosing", *options)
    assert code == 1
    assert "`if images.mean() > 0:` (mine.py, line 22)" in " ".join(printed.split())
    assert "Nothing was made of mine.py:Choosing: no variant that was asked for is possible." in printed


def test_an_onnx_file_is_compared_with_its_own_fp32(invoke: Invoke, place: Place) -> None:
    import onnx
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 13 * 13, 10))
    file = place.folder / "mine.onnx"
    torch.onnx.export(model.eval(), (torch.zeros(1, 1, 28, 28),), file, dynamo=True, verbose=False)
    stored = onnx.load(file)
    onnx.helper.set_model_props(stored, {"preprocessing": '{"mean": 0.5, "std": 0.25}'})
    onnx.save(stored, file)
    options = (*EAGER, *ONNX, *CONFIGS, "--config", "qat_int8", *SMALL, *QUICK, "--run-dir", "run")
    code, printed = invoke("pipeline", "--model", "mine.onnx", *options)
    assert code == 0, printed
    assert "mean 0.5 (model), std 0.25 (model)" in printed
    results = load_results(place.folder / "run" / "report" / "full_results.json")
    found = {variant.name: variant for variant in results.variants}
    assert results.answers[0].baseline == "fp32_baseline@onnxruntime"
    int8 = found["static_int8_per_channel@onnxruntime"]
    assert int8.executed.int8_mac_fraction == 1.0
    assert int8.size.ratio is not None
    assert int8.size.ratio < 0.5
    for name in ("fp32_baseline@eager", "qat_int8@onnxruntime"):
        assert "the model is an ONNX file" in (found[name].reason or "")
    assert "are against fp32_baseline@onnxruntime" in " ".join(results.distrust)
