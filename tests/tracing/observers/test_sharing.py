"""What shares a grid shares an observer, and nothing else does."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

from quant_explorer.tracing.observers.sharing import requantize_joined, separate_observers


class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = self.layer(x)
        gates = torch.sigmoid(values)
        made = torch.cumsum(gates, 1).reshape(-1, 2, 4, 4)
        return torch.cat([gates, 8 * values.relu(), made], 1)


def observer_of(prepared: fx.GraphModule, name: str) -> nn.Module:
    (place,) = (node for node in prepared.graph.nodes if node.args and str(node.args[0]) == name)
    return prepared.get_submodule(str(place.target))


def prepare() -> fx.GraphModule:
    mapping = quantization.get_default_qconfig_mapping("qnnpack")
    prepared = quantize_fx.prepare_fx(Gates().eval(), mapping, (torch.zeros(1, 2, 4, 4),))
    separate_observers(prepared, mapping)
    return prepared


def test_a_fixed_range_is_that_of_the_results_alone() -> None:
    prepared = prepare()
    assert isinstance(observer_of(prepared, "sigmoid"), quantization.FixedQParamsObserver)
    others = [observer_of(prepared, name) for name in ("layer", "reshape", "cat")]
    assert not any(isinstance(observer, quantization.FixedQParamsObserver) for observer in others)
    assert observer_of(prepared, "reshape") is observer_of(prepared, "cat")


def test_a_product_with_a_number_leaves_its_operand_a_grid() -> None:
    prepared = prepare()
    assert observer_of(prepared, "relu") is not observer_of(prepared, "mul")


def test_what_has_a_grid_of_its_own_is_rounded_before_it_is_joined() -> None:
    prepared = prepare()
    requantize_joined(prepared)
    (join,) = (node for node in prepared.graph.nodes if node.target is torch.cat)
    joined = observer_of(prepared, "cat")
    assert all(prepared.get_submodule(str(node.target)) is joined for node in join.all_input_nodes)
