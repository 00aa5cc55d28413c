from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from quant_explorer.core.cost.counts import LayerCost
from quant_explorer.models import load_model
from quant_explorer.models.small_cnn import SmallCnn
from quant_explorer.workload.layers import count_layers

IMAGE = (3, 8, 8)


def by_name(model: nn.Module, shape: tuple[int, ...] = IMAGE) -> dict[str, LayerCost]:
    return {layer.name: layer for layer in count_layers(model, shape)}


def counted_by_torch(model: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).eval()(torch.zeros(1, *shape))
    return int(counter.get_total_flops()) // 2


def test_small_cnn_has_the_macs_and_elements_counted_by_hand() -> None:
    model = SmallCnn().build(10, (3, 32, 32))
    layers = by_name(model, (3, 32, 32))
    assert sum(layer.macs for layer in layers.values()) == 38_634_752
    assert sum(layer.parameters for layer in layers.values()) == 288_746
    assert layers["block1.conv2"] == LayerCost(
        name="block1.conv2",
        kind="Conv2d",
        input_shape=(1, 32, 32, 32),
        output_shape=(1, 32, 32, 32),
        macs=32 * 32 * 32 * 32 * 9,
        parameters=32 * 32 * 9,
        input_elements=32 * 1024,
        output_elements=32 * 1024,
    )
    assert layers["classifier"].macs == 1_280
    assert (layers["block1.bn1"].macs, layers["block1.bn1"].parameters) == (0, 64)
    assert list(layers)[:3] == ["block1.conv1", "block1.bn1", "block1.conv2"]


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.Conv2d(3, 6, 3, stride=2, padding=1), 6 * 16 * 3 * 9),
        (nn.Conv2d(3, 3, 3, groups=3), 3 * 36 * 9),
        (nn.Conv2d(3, 6, (3, 1), groups=3, dilation=2), 6 * 4 * 8 * 3),
        (nn.ConvTranspose2d(3, 5, 2, stride=2), 3 * 64 * 5 * 4),
        (nn.Linear(8, 5), 3 * 8 * 8 * 5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_has_the_macs_of_the_formula_and_of_torch(layer: nn.Module, macs: int) -> None:
    (found,) = count_layers(nn.Sequential(layer), IMAGE)
    assert found.macs == macs == counted_by_torch(layer, IMAGE)


def test_layers_add_up_to_what_torch_counts_of_the_model() -> None:
    model = load_model("mobilenet_v3_large", weights=None, classes=10, image_shape=(3, 32, 32), seed=0).module
    layers = count_layers(model, (3, 32, 32))
    assert sum(layer.macs for layer in layers) == counted_by_torch(model, (3, 32, 32))
    assert sum(layer.parameters for layer in layers) == sum(
        parameter.numel() for parameter in model.parameters()
    )


class Twice(nn.Module):
    """One layer called twice, under two names, the second time on half of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.again = self.first

    def forward(self, images: Tensor) -> Tensor:
        whole: Tensor = self.first(images)
        half: Tensor = self.again(whole[..., :4])
        return half


def test_a_layer_called_twice_is_the_sum_of_its_calls() -> None:
    (layer,) = count_layers(Twice(), IMAGE)
    assert (layer.name, layer.calls, layer.parameters) == ("first", 2, 12)
    assert layer.macs == 9 * 64 + 9 * 32
    assert layer.input_elements == layer.output_elements == 3 * 64 + 3 * 32
    assert layer.input_shape == (1, 3, 8, 8)


class Mixing(nn.Module):
    """Two inputs, one by keyword, two outputs, and a product of its own around a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 8, bias=False)

    def forward(self, left: Tensor, *, right: Tensor) -> dict[str, list[Tensor]]:
        return {"both": [self.project(left) @ right, right]}


class Calling(nn.Module):
    """Gives Mixing its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = Mixing()

    def forward(self, images: Tensor) -> Tensor:
        mixed: Tensor = self.mixing(images, right=images[:, :1])["both"][0]
        return mixed


def test_several_inputs_are_counted_and_products_belong_to_whoever_computes_them() -> None:
    layers = by_name(Calling())
    assert list(layers) == ["mixing", "mixing.project"]
    mixing = layers["mixing"]
    assert (mixing.input_elements, mixing.output_elements) == (4 * 64, 4 * 64)
    assert mixing.macs == layers["mixing.project"].macs == 3 * 8 * 8 * 8
    assert (mixing.parameters, layers["mixing.project"].parameters) == (0, 64)


class Attending(nn.Module):
    """Rows of the image as tokens of width 8, and a head that only runs in training."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.auxiliary = nn.Linear(8, 100)

    def forward(self, images: Tensor) -> Tensor:
        tokens = images.flatten(1, 2)
        attended: Tensor = self.attention(tokens, tokens, tokens)[0]
        return self.auxiliary(attended) if self.training else attended


def test_attention_holds_its_products_and_what_it_reads_and_nothing_holds_an_unused_head() -> None:
    layers = by_name(Attending())
    assert list(layers) == ["attention"]
    assert layers["attention"].macs == 24 * 8 * (3 * 8 + 8) + 2 * 24 * 24 * 8
    assert layers["attention"].parameters == 4 * (8 * 8 + 8)


def test_the_model_is_not_touched() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_layers(model, IMAGE)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_the_model_raises_is_raised_and_leaves_nothing_behind() -> None:
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError, match="expected input"):
        count_layers(nn.Conv2d(5, 1, 1), IMAGE)
    assert torch.backends.mha.get_fastpath_enabled() == fast
