from collections import Counter

import pytest
import torch
from torch import nn

from quant_explorer.core.errors import ModelError
from quant_explorer.models import load_model
from quant_explorer.models.edge_cnn import EdgeCnn


def test_parameter_count_of_the_issue() -> None:
    model = EdgeCnn().build(10, (1, 28, 28))
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_130


def test_layers_in_order() -> None:
    model = EdgeCnn().build(10, (1, 28, 28))
    leaves = [type(module).__name__ for module in model.modules() if not list(module.children())]
    assert leaves == [*["Conv2d", "ReLU", "MaxPool2d"] * 2, "AdaptiveAvgPool2d", "Flatten", "Linear"]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [16, 32]
    assert all(conv.kernel_size == (3, 3) and conv.padding == (1, 1) for conv in convolutions)


def test_no_module_is_used_twice() -> None:
    model = EdgeCnn().build(10, (3, 32, 32))
    calls: Counter[str] = Counter()
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    model(torch.zeros(2, 3, 32, 32))
    assert len(calls) == 9
    assert set(calls.values()) == {1}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 4, 4), (3, 5, 17), (3, 224, 160)])
def test_channels_and_sizes(shape: tuple[int, int, int]) -> None:
    loaded = load_model("edge_cnn", weights=None, classes=7, image_shape=shape, seed=0)
    assert loaded.input_shape == shape
    assert loaded.module(torch.zeros(3, *shape)).shape == (3, 7)


def test_too_small_images() -> None:
    with pytest.raises(ModelError, match=r"32 x 3 are too small\. Allowed: at least 4 x 4"):
        load_model("edge_cnn", weights=None, classes=7, image_shape=(3, 3, 32), seed=0)
