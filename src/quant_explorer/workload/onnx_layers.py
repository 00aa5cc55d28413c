"""Work and traffic of the layers of an ONNX file, from the shapes that they have for one image."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from quant_explorer.core.cost.counts import LayerCost

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from quant_explorer.tracing.onnx_program import OnnxProgram

_RECURRENT = ("LSTM", "GRU", "RNN")
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", *_RECURRENT)
Shape = tuple[int, ...]


def count_onnx_layers(program: OnnxProgram, input_shape: Shape) -> tuple[LayerCost, ...]:
    """Return the layers that multiply, in the order of the graph; `input_shape` is (channels, height, width).

    A node belongs to the layer whose weights it multiplies by; products of two activations are outside of
    layers (""). Nodes inside of branches and loops are not counted.
    """
    import onnx

    model = onnx.load_from_string(program.data)
    stored = {item.name: tuple(item.dims) for item in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in _PRODUCTS]
    shapes = stored | _find_shapes(model, nodes, input_shape)
    layers: dict[str, LayerCost] = {}
    for node in nodes:
        cost = _cost(node, shapes, stored.keys())
        known = layers.get(cost.name)
        layers[cost.name] = cost if known is None else _add(known, cost)
    return tuple(layers.values())


def count_onnx_parameters(program: OnnxProgram) -> int:
    """Return how many floating-point numbers the file stores."""
    import onnx

    stored = onnx.load_from_string(program.data).graph.initializer
    return sum(math.prod(item.dims) for item in stored if item.data_type == onnx.TensorProto.FLOAT)


def _find_shapes(model: ModelProto, nodes: Sequence[NodeProto], input_shape: Shape) -> dict[str, Shape]:
    """Return the shapes of what the nodes read and write, by running the graph with these as outputs."""
    from onnx.helper import make_empty_tensor_value_info
    from onnxruntime import InferenceSession, SessionOptions

    from quant_explorer.tracing.onnx_program import INPUT_NAME

    given = {item.name for item in (*model.graph.initializer, *model.graph.input, *model.graph.output)}
    wanted = {name for node in nodes for name in (*node.input, _output_of(node)) if name} - given
    model.graph.output.extend(map(make_empty_tensor_value_info, sorted(wanted)))
    options = SessionOptions()
    options.log_severity_level = 3
    session = InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = np.zeros((1, *input_shape), np.float32)
    names = [item.name for item in session.get_outputs()]
    found = zip(names, session.run(names, {INPUT_NAME: image}), strict=True)
    return {INPUT_NAME: image.shape} | {name: np.shape(value) for name, value in found}


def _output_of(node: NodeProto) -> str:
    """Return the first output that is read: of a recurrent layer it may be the last state alone."""
    return next(str(name) for name in node.output if name)


def _cost(node: NodeProto, shapes: dict[str, Shape], stored: Set[str]) -> LayerCost:
    operands = [name for name in node.input if name]
    weights = [name for name in operands if name in stored]
    output = shapes[_output_of(node)]
    owner = node.name.partition("/")[0]
    return LayerCost(
        name=node.name.strip("/") if node.op_type in _RECURRENT else owner,
        kind=node.op_type,
        input_shape=shapes[operands[0]],
        output_shape=output,
        macs=_count_macs(node, [shapes[name] for name in operands], output),
        parameters=sum(math.prod(shapes[name]) for name in weights),
        input_elements=sum(math.prod(shapes[name]) for name in operands if name not in stored),
        output_elements=math.prod(output),
    )


def _count_macs(node: NodeProto, operands: list[Shape], output: Shape) -> int:
    first, second = operands[:2] if len(operands) > 1 else (operands[0], ())
    match node.op_type:
        case "Conv":
            return math.prod(output) * math.prod(second[1:])
        case "ConvTranspose":
            # Each weight of a filter meets every input.
            return math.prod(first) * math.prod(second[1:])
        case "Gemm" | "MatMul":
            # (..., m, k) x (..., k, n), or a vector for either.
            columns = second[-2:] if len(second) > 1 else (*second, 1)
            return math.prod(output) * math.prod(columns) // (output[-1] if len(second) > 1 else 1)
        case "Einsum":
            return _count_einsum(node, operands)
        case _:
            # Every step of the sequence multiplies by the weights of the input and of the state.
            return first[0] * first[1] * sum(math.prod(weight) for weight in operands[1:3])


def _count_einsum(node: NodeProto, operands: list[Shape]) -> int:
    """Each combination of the indices is one multiply-accumulate."""
    equation = next(item.s.decode() for item in node.attribute if item.name == "equation")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[object, int] = {}
    for term, shape in zip(terms, operands, strict=True):
        # Dimensions of an ellipsis are counted from its right end.
        before, dots, after = term.partition("...")
        hidden = [-number for number in range(len(shape) - len(before) - len(after), 0, -1)] if dots else []
        for index, size in zip([*before, *hidden, *after], shape, strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return math.prod(sizes.values())


def _add(first: LayerCost, second: LayerCost) -> LayerCost:
    """Return the sum of two nodes of a layer, which read the same weights."""
    return replace(
        first,
        macs=first.macs + second.macs,
        input_elements=first.input_elements + second.input_elements,
        output_elements=first.output_elements + second.output_elements,
        calls=first.calls + 1,
    )
