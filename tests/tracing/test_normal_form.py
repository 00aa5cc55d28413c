"""A normalized graph computes what the model does, with a layer for each call and each function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.tracing.normal_form import check, normalize

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 8, 8), dtype=np.float32)


class Functions(nn.Module):
    """Convolutions and linear layers as functions, one with computed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3))
        self.transposed = nn.Parameter(torch.randn(3, 2, 2, 2))
        self.linear = nn.Linear(512, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, self.kernel / self.kernel.std(), padding="same")
        x = F.conv_transpose2d(x, self.transposed, stride=2)
        return F.linear(x.flatten(1), self.linear.weight, bias=self.linear.bias)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Hardswish())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(2 * self.inner(x)).mean((2, 3))
        return logits


def targets(graph: fx.GraphModule) -> list[object]:
    return [node.target for node in graph.graph.nodes]


def test_functions_with_weights_become_layers() -> None:
    model = Functions()
    form = normalize(model.eval(), IMAGES)
    kinds = [
        type(form.module.get_submodule(str(t))) for t in targets(form.module) if _is_layer(form.module, t)
    ]
    assert kinds == [nn.Conv2d, nn.ConvTranspose2d, nn.Linear]
    assert "linear" in targets(form.module)
    assert set(form.tensors.values()) == {"transposed", "linear.weight", "linear.bias"}


def _is_layer(graph: fx.GraphModule, target: object) -> bool:
    return isinstance(target, str) and target in dict(graph.named_modules())


def test_trainable_weights_are_not_computed_ahead() -> None:
    model = Functions()
    form = normalize(model.eval(), IMAGES, trainable=True)
    assert F.conv2d in targets(form.module)
    assert "kernel" in form.tensors.values()


def test_each_call_of_a_layer_is_a_layer_with_the_same_weights() -> None:
    form = normalize(Shared().eval(), IMAGES)
    assert form.layers == {"inner.0_call2": "inner.0", "inner.1_call2": "inner.1"}
    first, again = form.module.get_submodule("inner.0"), form.module.get_submodule("inner.0_call2")
    assert first is not again
    assert first.weight is again.weight


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.add(x, x.flip(2), alpha=2),
        lambda x: torch.sub(x, other=x.flip(2), alpha=0.5),
        lambda x: x.add(1, alpha=3),
        lambda x: x.clone().sub_(x.flip(3), alpha=3),
    ],
)
def test_sums_have_no_factor(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    graph = normalize(Sum().eval(), IMAGES).module
    assert not any("alpha" in node.kwargs for node in graph.graph.nodes)


def test_layers_whose_weights_are_read_elsewhere_can_be_replaced() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scaled: torch.Tensor = self.layer(x) * self.layer.weight.sum()
            return scaled

    graph = normalize(Tied().eval(), IMAGES, trainable=True).module
    read = [node.target for node in graph.graph.nodes if node.op == "get_attr"]
    assert read == ["layer_weight"]


def test_another_result_for_one_image_is_refused() -> None:
    class Alone(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) if x.shape[0] == 1 else 2 * x.flatten(1)

    with pytest.raises(UnsupportedError, match="computes something else for 1 images"):
        normalize(Alone().eval(), IMAGES)


def test_what_is_not_finite_is_refused_and_never_near() -> None:
    images = np.ones((2, 3, 4, 4), np.float32)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()
    graph = normalize(model, images).module
    for wrong, message in ((graph, "computes something else"), (model, "float model are not finite")):
        wrong.load_state_dict({name: value * torch.nan for name, value in wrong.state_dict().items()})
        with pytest.raises(UnsupportedError, match=message):
            check(graph, model, images)


class Gained(nn.Conv2d):
    """A convolution that does more than its class, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__(3, 3, 3)
        self.gain = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (1, 1, 1, 1))) * self.gain


def test_a_subclass_of_a_layer_keeps_its_own_parameters() -> None:
    model = nn.Sequential(Gained()).eval()
    form = normalize(model, IMAGES)
    assert type(form.module.get_submodule("0")) is nn.Conv2d
    assert set(form.tensors.values()) == {"0.weight", "0.bias", "0.gain"}
    images = torch.from_numpy(IMAGES)
    torch.testing.assert_close(form.module(images), model(images))


class Bounded(nn.Module):
    """Clamps to a parameter, on one side and on both."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(self.low, self.low + 1) + torch.clamp(x, max=self.low)


def test_a_clamp_to_tensors_is_a_maximum_and_a_minimum() -> None:
    model = Bounded().eval()
    form = normalize(model, IMAGES)
    assert {torch.maximum, torch.minimum} < set(targets(form.module))
    assert "clamp" not in targets(form.module)
    images = torch.from_numpy(IMAGES)
    torch.testing.assert_close(form.module(images), model(images))
