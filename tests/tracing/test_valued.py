"""Sizes are numbers while a model is traced, and what cannot be traced is said with its line."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.tracing.valued import trace

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 6, 8), dtype=np.float32)
Function = Callable[[torch.Tensor], torch.Tensor]


class Computed(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    model[0].register_forward_pre_hook(lambda layer, images: (images[0] - 0.5,))
    model[0].register_forward_hook(lambda layer, images, output: output.relu())
    model[1].register_forward_hook(lambda layer, images, output: output * 2)
    return model.eval()


def _in_place(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.add_(1)
    return y


def _filled(x: torch.Tensor) -> torch.Tensor:
    mask = x.new_zeros(6, 8)
    mask[2:, :3] = 5
    return x + mask


@torch.fx.wrap
def _wrapped(x: torch.Tensor) -> torch.Tensor:
    return x / float(x.shape[2])


WORKS: dict[str, Function] = {
    "float of a size": lambda x: x / float(x.shape[2] * x.size(3)),
    "square root of a size": lambda x: x / math.sqrt(x.shape[-1]),
    "product of a shape": lambda x: x / x.shape[2:].numel(),
    "comparison of sizes": lambda x: x if x.shape[2] > x.shape[3] else -x,
    "loop over a size": lambda x: sum((x for _ in range(x.shape[1])), x),
    "number of images": lambda x: (
        x.reshape(x.shape[0] * 3, 6, 8).mean((1, 2)).view(len(x), 3)
        if x.dim() == 2
        else x.reshape(x.shape[0] * 3, 6, 8).view(x.size(0), -1)
    ),
    "in place": _in_place,
    "filled in": _filled,
    "sizes one by one": lambda x: torch.cat(
        [x, torch.zeros(x.shape[0], 1, 6, 8), torch.linspace(0, 1, 8).expand(x.size(0), 1, 6, -1)], 1
    ),
    "wrapped": _wrapped,
}


@pytest.mark.parametrize("name", WORKS)
def test_a_graph_computes_the_same_for_any_number_of_images(name: str) -> None:
    model = Computed(WORKS[name]).eval()
    graph = trace(model, IMAGES[:2])
    assert "quant_explorer" not in graph.code, "files of this package alone could not be run without it"
    for count in (1, 4):
        images = torch.from_numpy(IMAGES[:count])
        torch.testing.assert_close(graph(images.clone()), WORKS[name](images.clone()))


def test_sizes_are_no_operations() -> None:
    graph = trace(Computed(WORKS["float of a size"]).eval(), IMAGES)
    graph.graph.eliminate_dead_code()
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_function", "output"]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x if x.mean() > 0 else -x, "a value computed from images is taken for a Python number"),
        (lambda x: x * float(x.shape[0]), "their number is taken for a Python number"),
    ],
)
def test_what_depends_on_images_is_refused_with_its_line(function: Function, why: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"`\(lambda x: .*test_valued.py, line \d+\): {why}"):
        trace(Computed(function).eval(), IMAGES)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_is_its_linear_layers_and_a_product(batch_first: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    model = Computed(lambda x: attention(x[:, 0], x[:, 1], x[:, 1])[0])
    model.attention = attention
    graph = trace(model, IMAGES)
    assert "call_module" not in {node.op for node in graph.graph.nodes}
    torch.testing.assert_close(graph(torch.from_numpy(IMAGES)), model(torch.from_numpy(IMAGES)))


def test_what_hooks_compute_is_in_the_graph() -> None:
    model = _hooked()
    images = torch.from_numpy(IMAGES)
    expected = model(images)
    graph = trace(model, IMAGES)
    for layer in (*graph.modules(), *model.modules()):
        layer._forward_hooks.clear()
        layer._forward_pre_hooks.clear()
    assert torch.equal(graph(images), expected)
    assert not torch.equal(model(images), expected)
