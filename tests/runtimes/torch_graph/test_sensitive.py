"""What of an exported graph serves divisions, logarithms and roots alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quant_explorer.runtimes.torch_graph import pt2e
from quant_explorer.runtimes.torch_graph.sensitive import find_sensitive

SHAPE = (3, 4, 4)


class Layer(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.convolution, self.function = nn.Conv2d(3, 8, 1), function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(self.convolution(images))


def soft_pool(x: torch.Tensor) -> torch.Tensor:
    weights = torch.exp(x)
    return (x * weights).sum((2, 3)) / weights.sum((2, 3))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        pytest.param(soft_pool, ["exp", "mul", "sum_1", "sum_2"], id="weights that both sides read"),
        pytest.param(lambda x: torch.exp(x) + torch.exp(x).sum().log(), ["exp_1", "sum_1"], id="apart"),
        pytest.param(
            lambda x: (squares := x * x) + squares.sum((2, 3), keepdim=True).sqrt(),
            ["sum_1"],
            id="what others read, too",
        ),
        pytest.param(
            lambda x: (y := x.relu()) / y.sum((2, 3), keepdim=True), ["sum_1"], id="a fused clipping"
        ),
        pytest.param(
            lambda x: (x.abs() / x.abs().view(x.shape[0], -1).sum()).log(),
            [
                "abs_1",
                "abs_2",
                "view",
                "sum_1",
                "div",
            ],
            id="sizes are no readers",
        ),
    ],
)
def test_reaches_back_to_layers_and_to_what_others_read(
    function: Callable[[torch.Tensor], torch.Tensor], found: list[str]
) -> None:
    graph = pt2e.graph_of(pt2e.export(Layer(function).eval(), SHAPE))
    sensitive = find_sensitive(graph)
    assert [node.name for node in graph.graph.nodes if node in sensitive] == found
