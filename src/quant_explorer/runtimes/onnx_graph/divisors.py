"""What an ONNX graph divides by, which INT8 leaves in float: rounded to 0 it divides by zero."""

from __future__ import annotations

import onnx

_QUOTIENTS = {"Div": 1, "Reciprocal": 0}
# Between the last layers and a division; a layer multiplies by an initializer.
_ARITHMETIC = (
    *(
        "Add",
        "Sub",
        "Mul",
        "MatMul",
        "Einsum",
        "Pow",
        "Sqrt",
        "Exp",
        "Abs",
        "Clip",
        "Max",
        "Relu",
        "Softplus",
    ),
    *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Expand", "Reshape", "Transpose"),
    *("Squeeze", "Unsqueeze", "Gather", "Slice", "Identity"),
)
_PRODUCTS = ("MatMul", "Einsum")


def divisors(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the names of the nodes that compute divisors alone, as far back as the layers before them."""
    makers = {name: node for node in graph.node for name in node.output}
    weights = {item.name for item in graph.initializer}
    readers = [name for node in graph.node for name in node.input] + [item.name for item in graph.output]
    waiting = [node.input[_QUOTIENTS[node.op_type]] for node in graph.node if node.op_type in _QUOTIENTS]
    found: list[str] = []
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or node.op_type not in _ARITHMETIC or readers.count(name) > 1:
            continue
        if node.op_type in _PRODUCTS and not weights.isdisjoint(node.input):
            continue
        found.append(node.name)
        waiting += node.input
    return tuple(dict.fromkeys(found))
