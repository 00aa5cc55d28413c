"""Which operands of an ONNX graph are rounded, as `following.py` chooses those of operators of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx.shape_inference import infer_shapes

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.pipeline.building.simulation.following import HALF, Outputs
from quant_explorer.runtimes.onnx_graph.export import nodes_of_layers
from quant_explorer.runtimes.onnx_graph.masks import is_mask
from quant_explorer.runtimes.onnx_graph.sensitive import sensitive_nodes
from quant_explorer.tracing.onnx_program import INPUT_NAME, OUTPUT_NAME, linear_layers

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
_SUMS = (*_PRODUCTS, "BatchNormalization", "Add", "Sum")
# Fused with the sums before them, if with any.
_FUSED = {"BatchNormalization": _PRODUCTS, "Relu": _SUMS, "Clip": _SUMS}
# What gives values of its input again, on whose grid they stay.
_MOVES = (
    *("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"),
    *("Slice", "Split", "Gather", "Pad", "MaxPool", "GlobalMaxPool", "DepthToSpace", "SpaceToDepth"),
)
_MASKING = ("Add", "Sub", "Where")
# Operators whose constants are quantized as activations are; others have parameters, which stay float.
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Sum", "Concat")
# The number of images is no value of them.
_SIZES = ("Shape", "Size")


@dataclass(frozen=True)
class Operand:
    """The input at `position` of node number `node`; `outputs` is where the factor of a product has them."""

    node: int
    position: int
    name: str
    outputs: Outputs | None = None


@dataclass(frozen=True)
class Plan:
    """What is rounded: operands of nodes, and the makers' operators of those that are activations."""

    operands: tuple[Operand, ...]
    makers: dict[str, str]
    constants: frozenset[str]

    @property
    def activations(self) -> tuple[str, ...]:
        """The names of the values that depend on images."""
        names = (operand.name for operand in self.operands if operand.name not in self.constants)
        return tuple(dict.fromkeys(names))


def plan_rounding(model: onnx.ModelProto, candidate: Candidate) -> Plan:
    """Choose the operands that the candidate's spec rounds; raises UnsupportedError for an unknown layer."""
    graph, spec = model.graph, candidate.spec
    constants = {item.name: item for item in graph.initializer}
    moving = _find_moving(graph)
    floats = _float_values(model)
    masked = _find_masked(graph, constants)
    kept = set(nodes_of_layers(graph, spec.float_layers))
    if spec.precision == "int8":
        kept.update(sensitive_nodes(graph))
    makers = {name: node.op_type for node in graph.node for name in node.output}
    linear = set(linear_layers(candidate.model))

    def is_rounded(name: str, *, constant: bool) -> bool:
        known = name in constants if constant else name in moving - masked
        return known and name in floats

    operands: list[Operand] = []
    for number, node in enumerate(graph.node):
        if node.name in kept:
            continue
        if spec.activations == "dynamic" and node.name.partition("/")[0] not in linear:
            continue
        for operand in _read(number, node, spec, makers):
            factor = operand.name in constants and node.op_type in _PRODUCTS
            constant = factor or (operand.name in constants and node.op_type in _ARITHMETIC)
            if is_rounded(operand.name, constant=constant):
                outputs = _outputs(node, constants[operand.name], operand.position) if factor else None
                operands.append(Operand(number, operand.position, operand.name, outputs))
    if (spec.activations == "static" or spec.precision in HALF) and OUTPUT_NAME not in masked:
        operands.append(Operand(len(graph.node), 0, OUTPUT_NAME))
    return Plan(tuple(operands), makers, frozenset(constants))


def _read(number: int, node: onnx.NodeProto, spec: QuantSpec, makers: dict[str, str]) -> Iterator[Operand]:
    """Yield what a node reads rounded, if it is a float value."""
    operands = [Operand(number, position, name) for position, name in enumerate(node.input) if name]
    if node.op_type in _PRODUCTS:
        # The third operand is a bias.
        yield from operands[:2]
        return
    rounds = spec.activations == "static" or spec.precision in HALF
    if not rounds or node.op_type in _MOVES or any(item.g.node for item in node.attribute):
        return
    if makers.get(node.input[0] if node.input else "") in _FUSED.get(node.op_type, ()):
        return
    yield from operands


def _outputs(node: onnx.NodeProto, weight: onnx.TensorProto, position: int) -> Outputs:
    attributes = {item.name: item.i for item in node.attribute}
    if node.op_type in ("Conv", "Einsum"):
        return Outputs(0)
    if node.op_type == "ConvTranspose":
        return Outputs(1, transposed_groups=attributes.get("group", 1))
    outputs_last = position == 1
    if node.op_type == "Gemm" and attributes.get("transB" if position else "transA", 0):
        outputs_last = not outputs_last
    return Outputs(max(len(weight.dims) - (1 if outputs_last else 2), 0))


def _find_moving(graph: onnx.GraphProto) -> set[str]:
    """Return the values that depend on the images."""
    moving = {INPUT_NAME}
    for node in graph.node:
        inner = (name for item in node.attribute for made in item.g.node for name in made.input)
        if node.op_type not in _SIZES and not moving.isdisjoint((*node.input, *inner)):
            moving.update(node.output)
    return moving


def _float_values(model: onnx.ModelProto) -> set[str]:
    graph = infer_shapes(model, data_prop=True).graph
    known = (*graph.input, *graph.output, *graph.value_info)
    names = {item.name for item in known if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return names | {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT}


def _find_masked(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> set[str]:
    """Return the values with a mask of attention in them, which have no useful scale."""
    masked = {name for name, item in constants.items() if is_mask(item)}
    for node in graph.node:
        if node.op_type in (*_MASKING, *_MOVES) and not masked.isdisjoint(node.input):
            masked.update(node.output)
    return masked
