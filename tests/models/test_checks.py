from pathlib import Path

import pytest
import torch

from quant_explorer.core.errors import ModelError
from quant_explorer.models import LoadedModel, check_training, load_model, parameter_digest

SOURCE = """import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.{conv}
        self.linear = nn.{linear}

    def forward(self, images):
        x = self.conv(images).mean((2, 3))
        {line}
"""


def load(
    folder: Path,
    line: str,
    *,
    conv: str = "Conv2d(3, 4, 3)",
    linear: str = "Linear(4, 5)",
    classes: int = 5,
) -> LoadedModel:
    (folder / "mine.py").write_text(SOURCE.format(line=line, conv=conv, linear=linear))
    name = f"{folder / 'mine.py'}:Net"
    return load_model(name, weights=None, classes=classes, image_shape=(3, 8, 8), seed=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "return self.linear(x).squeeze()",
            r"shape \(5,\) for 1 image; .*squeeze without a dimension.*mine\.py:13: return .*squeeze\(\)",
        ),
        (
            "return self.linear(F.dropout(x, 0.5))",
            r"other outputs the second time.*mine\.py:13: return .*dropout.*training=self\.training",
        ),
        (
            "return self.linear.bfloat16()(x.bfloat16()).float()",
            r"computes in torch\.bfloat16 inside \(see .*mine\.py:13: return",
        ),
        (
            "return self.linear(x).double()",
            r"gives torch\.float64 \(see .*mine\.py:13: return .*\)\. Allowed: torch\.float32",
        ),
        (
            "return {'out': x, 'logits': self.linear(x)}",
            r"returned dict, .*mine\.py:13: return.*return self\.inner\(images\)\['logits'\]",
        ),
        (
            "return self.linear(x), x",
            r"returned tuple, .*mine\.py:13: return.*return self\.inner\(images\)\[0\]",
        ),
        (
            "images -= 0.5; return self.linear(self.conv(images).mean((2, 3)))",
            r"writes into the images .*mine\.py:13: images -= 0\.5.*x\.clone\(\)",
        ),
        (
            "return self.linear(x - x.mean())",
            r"other outputs beside another image than alone.*mine\.py:13: return .*x\.mean\(\)",
        ),
        ("return self.linear(x)[:, :, None, None]", r"Return output\.flatten\(1\)"),
        ("return self.linear(x.view(2, 4))", r"batch of shape \(1, 3, 8, 8\).*mine\.py:13: return"),
    ],
)
def test_a_model_that_cannot_be_used_gets_the_reason_and_the_line(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ModelError, match=rf"(?s){message}"):
        load(tmp_path, line)


def test_dropout_that_knows_when_to_stop_is_sound(tmp_path: Path) -> None:
    assert load(tmp_path, "return self.linear(F.dropout(x, 0.5, self.training))").notes == ()


def test_a_model_in_another_precision(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"holds torch\.float64 \(for instance in linear\.bias\).*mine\.py:9: .*Allowed: torch\.float32",
    ):
        load(
            tmp_path,
            "return self.linear(x.double()).float()",
            linear="Linear(4, 5, dtype=torch.float64)",
        )


@pytest.mark.parametrize(
    ("linear", "message"),
    [
        ("Linear(4, 5, device='meta')", r"on the device meta \(for instance linear\.bias\)\. Allowed: cpu"),
        (
            "Identity(); self.linear = torch.ao.nn.quantized.Linear(4, 5)",
            r"something else than tensors: .*linear\._packed_params.*float32",
        ),
    ],
)
def test_a_model_without_weights_of_its_own(tmp_path: Path, linear: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(tmp_path, "return self.linear(x)", linear=linear)


def test_a_softmax_at_the_end_is_reported(tmp_path: Path) -> None:
    (note,) = load(tmp_path, "return self.linear(x).softmax(1)").notes
    assert "ends with a softmax" in note
    assert f"{tmp_path / 'mine.py'}:13: return self.linear(x).softmax(1)" in note


def test_lazy_layers_are_initialized_by_the_seed(tmp_path: Path) -> None:
    first, second = (load(tmp_path, "return self.linear(x)", linear="LazyLinear(5)") for _ in range(2))
    assert first.notes == (
        "Lazy layers got their shapes from a batch (2, 3, 8, 8): linear.weight, linear.bias",
    )
    assert torch.equal(
        first.module.get_parameter("linear.weight"), second.module.get_parameter("linear.weight")
    )


def test_lazy_layers_that_nothing_calls_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no shape: linear\.weight, linear\.bias \(see .*mine\.py:9: "):
        load(tmp_path, "return x[:, :5]", conv="Conv2d(3, 5, 3)", linear="LazyLinear(5)")


@pytest.mark.parametrize(
    "wrap", ["weight_norm", "spectral_norm", "parametrizations.weight_norm", "parametrizations.orthogonal"]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_that_are_computed_are_named(tmp_path: Path, wrap: str) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        f"    return nn.Sequential(nn.Flatten(), nn.utils.{wrap}(nn.Linear(192, 5)))\n"
    )
    loaded = load_model(
        f"{tmp_path / 'mine.py'}:make", weights=None, classes=5, image_shape=(3, 8, 8), seed=0
    )
    assert loaded.notes == ("Computed once, and plain weights from then on, in training too: 1.weight",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "return (self.linear(x), x) if self.training else self.linear(x)",
            r"training mode the model returns tuple, not one tensor \(n, 5\).*mine\.py:13: return"
            r".*\[0\] if self\.training else self\.inner\(images\)",
        ),
        (
            "return self.linear(x).detach()",
            r"outputs have no gradient, .*mine\.py:13: return .*detach\(\)",
        ),
        (
            "return x if self.training else self.linear(x)",
            r"returns a tensor \(2, 4\), not one tensor \(n, 5\)",
        ),
        (
            "return self.linear(x.view(-1, 3) if self.training else x)",
            r"batch of shape \(2, 3, 8, 8\) in training mode .*mine\.py:13: return",
        ),
    ],
)
def test_what_training_gives_is_checked_where_something_is_trained(
    tmp_path: Path, line: str, message: str
) -> None:
    loaded = load(tmp_path, line)
    with pytest.raises(ModelError, match=rf"(?s){message}"):
        check_training(loaded.module, loaded.input_shape, 5)


def test_a_model_with_heads_for_training(tmp_path: Path) -> None:
    loaded = load_model("torchvision:googlenet", weights=None, classes=5, image_shape=(3, 64, 64), seed=0)
    before = parameter_digest(loaded.module)
    with pytest.raises(ModelError, match=r"(?s)returns GoogLeNetOutputs.*aux_logits=False.*\.logits if self"):
        check_training(loaded.module, loaded.input_shape, 5)
    assert parameter_digest(loaded.module) == before


def test_more_outputs_than_classes_point_to_the_list_of_names(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the data set has 4 classes.*--classes FILE names them"):
        load(tmp_path, "return self.linear(x)", classes=4)


def test_layers_that_are_in_no_file_are_refused(tmp_path: Path) -> None:
    message = r"layers in a plain list, tuple or dict .* weights: conv\.more\. Allowed: nn\.ModuleList"
    conv = "Conv2d(3, 4, 3); self.conv.more = {'own': self.conv, 'hidden': nn.Linear(5, 5)}"
    with pytest.raises(ModelError, match=message):
        load(tmp_path, "return self.linear(x)", conv=conv)
