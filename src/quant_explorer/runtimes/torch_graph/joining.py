"""Tensors that PyTorch's FX quantization joins: `torch.cat` of INT8 values has the grid of its first operand.

FX gives all operands one observer, but a product with a number has the grid of its factor whatever was
observed, and all that is joined to it would be clipped to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import fx
from torch.ao import quantization

_JOINS: Final = (torch.cat, torch.concat, torch.concatenate)
_quantized = torch.ops.quantized
_WITH_NUMBER: Final = (_quantized.mul, _quantized.mul_relu, _quantized.add, _quantized.add_relu)
# Behind them values are float, or have a grid of their own.
_ENDS: Final = ("dequantize", torch.quantize_per_tensor)


def ranges_of_joins(prepared: fx.GraphModule) -> Mapping[str, tuple[float, int]]:
    """Return scale and zero point of all that each `torch.cat` joins, by its node's name."""
    return {
        node.name: _parameters(observer)
        for node in prepared.graph.nodes
        if node.target in _JOINS
        for observer in (_observer(prepared, user) for user in node.users)
        if observer is not None
    }


def requantize_joins(converted: fx.GraphModule, ranges: Mapping[str, tuple[float, int]]) -> None:
    """Bring first operands that have another grid to that of the joins in `ranges`, in place."""
    for node in list(converted.graph.nodes):
        if node.target not in _JOINS or node.name not in ranges:
            continue
        first, (scale, zero_point) = node.all_input_nodes[0], ranges[node.name]
        if not _has_grid_of_factor(converted, first):
            continue
        with converted.graph.inserting_before(node):
            values = converted.graph.call_method("dequantize", (first,))
            rounded = converted.graph.call_function(
                torch.quantize_per_tensor, (values, scale, zero_point, torch.quint8)
            )
        node.replace_input_with(first, rounded)
    converted.recompile()


def _has_grid_of_factor(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Say whether INT8 values are a product or sum with a number, also behind what keeps the grid."""
    while len(node.all_input_nodes) == 1:
        if node.target in _WITH_NUMBER:
            return True
        layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if type(layer).__module__.startswith("torch.ao.") or node.target in _ENDS:
            return False
        node = node.all_input_nodes[0]
    return False


def _observer(graph: fx.GraphModule, node: fx.Node) -> quantization.ObserverBase | None:
    layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return layer if isinstance(layer, quantization.ObserverBase) else None


def _parameters(observer: quantization.ObserverBase) -> tuple[float, int]:
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point)
