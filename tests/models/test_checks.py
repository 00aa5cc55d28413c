from pathlib import Path

import pytest
import torch

from quant_explorer.core.errors import ModelError
from quant_explorer.models import LoadedModel, load_model

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
        ("return self.linear(x).double()", r"gives torch\.float64\. Allowed: torch\.float32"),
        (
            "return {'out': x, 'logits': self.linear(x)}",
            r"returned dict.*return self\.inner\(images\)\['logits'\]",
        ),
        ("return self.linear(x), x", r"returned tuple.*return self\.inner\(images\)\[0\]"),
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
    with pytest.raises(ModelError, match=r"holds torch\.float64\. Allowed: torch\.float32"):
        load(
            tmp_path,
            "return self.linear(x.double()).float()",
            linear="Linear(4, 5, dtype=torch.float64)",
        )


def test_a_softmax_at_the_end_is_reported(tmp_path: Path) -> None:
    (note,) = load(tmp_path, "return self.linear(x).softmax(1)").notes
    assert "ends with a softmax" in note


def test_lazy_layers_are_initialized_by_the_seed(tmp_path: Path) -> None:
    first, second = (load(tmp_path, "return self.linear(x)", linear="LazyLinear(5)") for _ in range(2))
    assert first.notes == (
        "Lazy layers got their shapes from a batch (2, 3, 8, 8): linear.weight, linear.bias",
    )
    assert torch.equal(
        first.module.get_parameter("linear.weight"), second.module.get_parameter("linear.weight")
    )


def test_more_outputs_than_classes_point_to_the_list_of_names(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the data set has 4 classes.*--classes FILE names them"):
        load(tmp_path, "return self.linear(x)", classes=4)
