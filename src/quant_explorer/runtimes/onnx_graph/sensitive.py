"""What an ONNX graph divides or takes a logarithm of, which INT8 leaves in float.

Rounded to 0, a divisor divides by zero. An error of a numerator grows as the divisor shrinks, and an error of
what a logarithm or a square root is taken of grows as that comes near 0.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

_QUOTIENTS = ("Div", "Reciprocal")
_ROOTS = ("Log", "ReduceLogSum", "ReduceLogSumExp", "LogSoftmax", "Sqrt")
# Between the last layers and these; a layer multiplies by an initializer.
_ARITHMETIC = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Abs", "Clip", "Max", "Relu", "Softplus"),
    *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Expand", "Reshape", "Transpose"),
    *("Squeeze", "Unsqueeze", "Gather", "Slice", "Identity", "AveragePool", "GlobalAveragePool"),
)
_PRODUCTS = ("MatMul", "Einsum")


def sensitive_nodes(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the names of divisions, logarithms and square roots, and of the arithmetic for them alone.

    It reaches back to the layers before them; products of activations are among it for divisions only.
    """
    makers = {name: node for node in graph.node for name in node.output}
    fixed = {item.name for item in graph.initializer}
    starts = [node for node in graph.node if node.op_type in (*_QUOTIENTS, *_ROOTS)]
    starts = [node for node in starts if node.op_type != "Div" or node.input[1] not in fixed]
    starts += [node for node in graph.node if node.op_type == "Pow" and _is_root(node, graph)]
    found = {node.name: node for node in starts}
    waiting = [(name, node.op_type in _QUOTIENTS) for node in starts for name in node.input]
    while waiting:
        name, divides = waiting.pop()
        node = makers.get(name)
        kinds = (*_ARITHMETIC, *_PRODUCTS) if divides else _ARITHMETIC
        if node is None or node.op_type not in kinds or node.name in found:
            continue
        if node.op_type in _PRODUCTS and not fixed.isdisjoint(node.input):
            continue
        found[node.name] = node
        waiting += [(operand, divides) for operand in node.input]
    _drop_shared(found, graph, {node.name for node in starts})
    return tuple(node.name for node in graph.node if node.name in found)


def _is_root(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Say whether a power has an exponent that is no whole number, or none that is known."""
    exponents = [numpy_helper.to_array(item) for item in graph.initializer if item.name == node.input[1]]
    return not exponents or bool((exponents[0] % 1 != 0).any())


def _drop_shared(found: dict[str, onnx.NodeProto], graph: onnx.GraphProto, starts: set[str]) -> None:
    """Remove from `found` what other nodes, or the model's user, read too."""
    while shared := _shared(found, graph, starts):
        for name in shared:
            del found[name]


def _shared(found: dict[str, onnx.NodeProto], graph: onnx.GraphProto, starts: set[str]) -> list[str]:
    others = [node for node in graph.node if node.name not in found and node.op_type != "Shape"]
    read = {item.name for item in graph.output}.union(*(node.input for node in others))
    return [name for name, node in found.items() if name not in starts and not read.isdisjoint(node.output)]
