"""Rewritten graphs compute the same, in the words that quantizers know."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from quant_explorer.runtimes.torch_graph import pt2e
from quant_explorer.runtimes.torch_graph.rewriting import rewrite
from quant_explorer.testing.toys import toy_batches

SHAPE = (3, 8, 8)
IMAGES = torch.from_numpy(toy_batches(SHAPE, count=1)[0])


class Calling(nn.Module):
    """A function of images and a weight (4, 3, 4, 3) of the model."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.linspace(-1, 1, 144).view(4, 3, 4, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(images, self.weight).flatten(1)


def standardized(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.conv2d(x, (weight - weight.mean()) / weight.std())


@pytest.mark.parametrize(
    ("function", "called"),
    [
        (lambda x, w: torch.add(x, x.relu(), alpha=2), "relu mul add"),
        (lambda x, w: torch.sub(x, x.relu(), alpha=0.5), "relu mul sub"),
        (lambda x, w: torch.rsub(x, x.relu(), alpha=3), "relu mul rsub"),
        (lambda x, w: x.clone().add_(x.relu(), alpha=2), "clone relu mul add_"),
        (lambda x, w: torch.add(x, 1.5, alpha=2), "add"),
        (lambda x, w: x + x.relu(), "relu add"),
        (lambda x, w: x.clamp(w[0, :, 0, :1, None], max=w[3, :, 3, :1, None]), "maximum minimum"),
        (lambda x, w: torch.clamp(x, max=w[0, :, 0, :1, None]), "minimum"),
        (lambda x, w: functional.conv2d(x, w[:, :, :3], padding="same"), "conv2d"),
        (lambda x, w: functional.conv2d(x, w, padding="same"), "constant_pad_nd conv2d"),
        (lambda x, w: functional.conv2d(x, w, padding="same", dilation=(1, 2)), "constant_pad_nd conv2d"),
        (lambda x, w: functional.conv2d(x, w, padding="valid"), "conv2d"),
        (lambda x, w: functional.conv1d(x.flatten(2), w[:, :, 0], padding="same"), "flatten conv1d"),
        (standardized, "conv2d"),
        (lambda x, w: x.relu() + torch.zeros(8, 8).fill_diagonal_(2), None),
    ],
)
def test_it_computes_the_same(
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], called: str | None
) -> None:
    model = Calling(function).eval()
    graph = pt2e.graph_of(pt2e.export(model, SHAPE))
    rewrite(graph)
    with torch.no_grad():
        np.testing.assert_allclose(graph(IMAGES).numpy(), model(IMAGES).numpy(), rtol=1e-5, atol=1e-5)
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    names = [node.target.overloadpacket.__name__ for node in nodes]
    assert called is None or names == [*called.split(), "flatten"]
    assert not any(node.kwargs.get("alpha") for node in nodes)
    assert not any(isinstance(argument, str) for node in nodes for argument in node.args)
