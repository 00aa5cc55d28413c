"""Multiply-accumulates by precision, from the graph that OpenVINO's CPU plugin executes.

Source: OpenVINO, `CompiledModel.get_runtime_model` ("execution graph"): each node names its kernel, for
instance `brgconv_avx512_I8`, whose ending is the type that it multiplies.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import openvino

from quant_explorer.core.measurement import Executed

# Lower case where both sides are signed, as in attention.
_PRECISIONS = {"I8": "int8", "i8": "int8", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}
# Recurrent layers in the model, and what the plugin executes: each direction alone, and for PyTorch's layers
# a loop that shows nothing of its weights.
_RECURRENT = {f"{kind}{over}" for kind in ("LSTM", "GRU", "RNN") for over in ("Sequence", "Cell")}
_RECURRENT_NODES = ("RNNSeq", "RNNCell", "TensorIterator")


def count_macs(compiled: openvino.CompiledModel, model: openvino.Model) -> Executed:
    """Count what `compiled` executes; `model` is what it was made of, with the same fixed shape.

    Counts are per image, those of kernels are of calls.
    """
    images = model.input().get_shape()[0]
    nodes = compiled.get_runtime_model().get_ordered_ops()
    named = {name for node in nodes for name in _origins(node)}
    products = _count_products(model, named)
    macs: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    in_float: Counter[str] = Counter()
    recurrent = ""
    for node in nodes:
        kind, kernel = (str(node.get_rt_info()[key].value) for key in ("layerType", "primitiveType"))
        origins = _origins(node)
        count = _count_node(node, kind, origins, products)
        ending = kernel.rpartition("_")[2]
        precision = _PRECISIONS.get(ending, ending)
        if kind in _RECURRENT_NODES:
            recurrent = precision
            kernels[f"{kind} {kernel}"] += 1
        if count:
            macs[precision] += count // images
            if precision != "int8":
                in_float[_describe(kind, origins)] += count
            kernels[f"{kind} {kernel}"] += 1
    for operation in model.get_ordered_ops() if recurrent else ():
        count = _count_recurrent(operation)
        if count:
            macs[recurrent] += count // images
            in_float[_describe(operation.get_type_name(), _readers(operation))] += count
    return Executed(
        dict(sorted(macs.items())),
        dict(sorted(kernels.items())),
        tuple(name for name, _ in in_float.most_common()) if macs["int8"] else (),
    )


def _origins(node: openvino.Node) -> list[str]:
    return str(node.get_rt_info()["originalLayersNames"].value).split(",")


def _count_products(model: openvino.Model, named: Container[str]) -> dict[str, int]:
    """Count products by name; those not `named` in the execution graph for the operation that reads them.

    A product whose factor is scaled loses its name when OpenVINO moves the scale.
    """
    products: Counter[str] = Counter()
    for operation in model.get_ordered_ops():
        count = _count_operation(operation)
        while count and operation.get_friendly_name() not in named and operation.get_output_size():
            readers = operation.output(0).get_target_inputs()
            if len(readers) != 1:
                break
            operation = next(iter(readers)).get_node()
        if count:
            products[operation.get_friendly_name()] += count
    return products


def _count_node(node: openvino.Node, kind: str, origins: Sequence[str], products: Mapping[str, int]) -> int:
    if kind in ("Convolution", "Deconvolution"):
        return _count_convolution(node, transposed=kind == "Deconvolution")
    if kind in ("FullyConnected", "MatMul"):
        return _count_product(node)
    if kind == "Subgraph":
        # Code generated for several operations at once, attention for one; only their names are left.
        return sum(products.get(name, 0) for name in origins)
    return 0


def _describe(kind: str, names: Iterable[str]) -> str:
    # What OpenVINO's own passes made has a number, what was exported the layer and a slash.
    layer = next((name.partition("/")[0] for name in names if "/" in name), "")
    return f"{kind} of layer {layer!r}" if layer else kind


def _readers(operation: openvino.Node) -> Iterator[str]:
    """Yield the names of the operations behind one, the nearest first, but not those named after it."""
    own = f"{operation.get_friendly_name()}/"
    waiting = deque([operation])
    while waiting:
        operation = waiting.popleft()
        if not operation.get_friendly_name().startswith(own):
            yield operation.get_friendly_name()
        waiting += [port.get_node() for value in operation.outputs() for port in value.get_target_inputs()]


def _count_recurrent(operation: openvino.Node) -> int:
    """Count the products of a recurrent layer, with both of its weights at each step."""
    if operation.get_type_name() not in _RECURRENT:
        return 0
    of_values, of_states, _ = (_shape(port) for port in operation.inputs()[-3:])
    steps = math.prod(_shape(operation.input(0))[:-1])
    return steps * (math.prod(of_values) + math.prod(of_states))


def _count_operation(operation: openvino.Node) -> int:
    if operation.get_type_name() == "MatMul":
        return _count_product(operation)
    if operation.get_type_name() == "Einsum":
        # Each combination of the indices is one multiply-accumulate.
        operands = operation.get_attributes()["equation"].partition("->")[0].split(",")
        sizes = dict(
            pair
            for place, indices in enumerate(operands)
            for pair in zip(indices.strip(), _shape(operation.input(place)), strict=True)
        )
        return math.prod(sizes.values()) if len(operands) == 2 else 0
    if operation.get_type_name() == "ScaledDotProductAttention":
        queries, keys, values = (_shape(operation.input(position)) for position in range(3))
        return math.prod(queries[:-1]) * keys[-2] * (keys[-1] + values[-1])
    return 0


def _count_product(node: openvino.Node) -> int:
    left, output = _shape(node.input(0)), _shape(node.output(0))
    # The inner axis is whichever of the last two of the left side is not the rows.
    return math.prod(output) * (left[-1] * left[-2] // output[-2])


def _count_convolution(node: openvino.Node, *, transposed: bool) -> int:
    source, weight, output = _shape(node.input(0)), _shape(node.input(1)), _shape(node.output(0))
    # Grouped kernels have the groups as one axis more, before those of a filter's own.
    per_filter = weight[len(weight) - len(output) + 1 :]
    return math.prod(source if transposed else output) * math.prod(per_filter)


def _shape(port: openvino.Input | openvino.Output) -> tuple[int, ...]:
    return tuple(port.get_shape())
