"""A PyTorch module as an ONNX graph, as `onnxruntime` and `openvino` lower from it.

Source of the method: PyTorch, "torch.export-based ONNX exporter",
https://docs.pytorch.org/docs/2.9/onnx_export.html. Its optimizer folds batch norms into convolutions.
"""

from __future__ import annotations

import copy
import logging
import weakref
from ast import literal_eval
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.runtimes.onnx_graph.spelling import KnownToOnnx
from quant_explorer.tracing.onnx_program import INPUT_NAME, OUTPUT_NAME, OnnxProgram
from quant_explorer.tracing.reasons import in_brackets

_AVERAGE_POOLS = (torch.ops.aten.avg_pool2d.default, torch.ops.aten.avg_pool3d.default)
_DIVISOR = 6
_log = logging.getLogger(__name__)
_NAME_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class _Export:
    """The file, and what it was made of: shape of an image, addresses and versions of the tensors.

    Every in-place change of a tensor raises its version.
    """

    data: bytes
    state: tuple[tuple[int, ...], ...]


_exports: weakref.WeakKeyDictionary[nn.Module, _Export] = weakref.WeakKeyDictionary()


def export_onnx(model: nn.Module, example: Batch) -> bytes:
    """Return `model` as one serialized ONNX file without external data, for any number of images.

    The input is `images`, float32 (n, channels, height, width), the output `logits`. A node's name is
    that of the layer it belongs to, a slash and the operator, so that `nodes_of_layers` finds it; an einsum's
    ends with its indices. The
    bytes depend on the model and the versions of torch, onnx, onnx-ir and onnxscript only. A module is
    exported once, however many configurations start from it; what was read from an ONNX file is that file.
    Raises UnsupportedError when it cannot be exported.
    """
    if isinstance(model, OnnxProgram):
        return model.data
    state = (example.shape[1:], *((tensor.data_ptr(), tensor._version) for tensor in _tensors(model)))
    known = _exports.get(model)
    if known is None or known.state != state:
        known = _Export(_export(model, example).SerializeToString(deterministic=True), state)
        _exports[model] = known
    return known.data


def nodes_of_layers(graph: onnx.GraphProto, layers: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the nodes that layers (qualified names; a container's are all inside it) became.

    Raises UnsupportedError for a layer that is not in the graph.
    """
    found: list[str] = []
    for layer in layers:
        nodes = [
            node.name for node in graph.node if f"{node.name.partition('/')[0]}.".startswith(f"{layer}.")
        ]
        if not nodes:
            raise UnsupportedError(f"layer {layer!r} is not in the exported graph and cannot stay in float")
        found += nodes
    return tuple(dict.fromkeys(found))


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _export(model: nn.Module, example: Batch) -> onnx.ModelProto:
    # Two images: of one, torch.export concludes that there is always one.
    images = torch.from_numpy(np.concatenate([example[:1], example[:1]]))
    try:
        with KnownToOnnx():
            program = torch.onnx.export(
                copy.deepcopy(model).eval(),
                (images,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        _log.info("the ONNX exporter: %s", cause)
        raise UnsupportedError(
            f"the model cannot be exported to ONNX for any number of images{in_brackets(cause)}; control "
            "flow that depends on the input or on its size must be moved out of forward(), an operator that "
            "ONNX does not have replaced"
        ) from error
    assert program is not None
    assert program.exported_program is not None
    _refuse_divisors(program.exported_program)
    exported = program.model_proto
    if not exported.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise UnsupportedError(
            "the model cannot be exported to ONNX for any number of images, only for the one it was traced "
            "with, because of an operator of the model; write it without the number of images"
        )
    _name_nodes(exported.graph, {name for name, _ in model.named_modules()})
    _complete_sizes(exported.graph)
    _strip(exported)
    return exported


def _refuse_divisors(program: torch.export.ExportedProgram) -> None:
    """Raise UnsupportedError for an average pool with a divisor of its own, which the exporter leaves out."""
    for node in program.graph.nodes:
        if node.target in _AVERAGE_POOLS and node.args[_DIVISOR:] not in ((), (None,)):
            layer = list(node.meta.get("nn_module_stack", {"": ("",)}).values())[-1][0]
            raise UnsupportedError(
                f"ONNX has no average pool with a divisor of its own (layer {layer!r}: divisor_override="
                f"{node.args[_DIVISOR]}); leave it out and multiply the result by a number"
            )


def _name_nodes(graph: onnx.GraphProto, layers: set[str]) -> None:
    weights = {item.name for item in graph.initializer}
    numbers: Counter[str] = Counter()
    for node in graph.node:
        name = f"{_layer_of(node, weights, layers)}/{node.op_type}{_indices(node)}"
        numbers[name] += 1
        node.name = name if numbers[name] == 1 else f"{name}_{numbers[name]}"


def _indices(node: onnx.NodeProto) -> str:
    """Return the indices of an einsum, `[ij.jk-ik]`, which are all that says what it multiplies."""
    equation = next((item.s.decode() for item in node.attribute if item.name == "equation"), "")
    return f"[{equation.replace(' ', '').replace(',', '.').replace('->', '-')}]" if equation else ""


def _layer_of(node: onnx.NodeProto, weights: set[str], layers: set[str]) -> str:
    """Return the layer whose weight the node reads, otherwise the innermost one that was being called.

    A convolution with a batch norm folded into it keeps its weight's name, but was "called" by the latter.
    """
    for name in node.input:
        owner, _, leaf = name.rpartition(".")
        if name in weights and leaf == "weight" and owner in layers:
            return str(owner)
    for item in node.metadata_props:
        if item.key == _NAME_SCOPES:
            scopes: list[str] = literal_eval(item.value)
            # What computes the number of images is in no layer.
            return next((scope for scope in reversed(scopes) if scope in layers), "")
    return ""


def _complete_sizes(graph: onnx.GraphProto) -> None:
    """Give pools a size for each axis: the exporter writes one that is a list of one number as it is."""
    for node in graph.node:
        sizes = {attribute.name: attribute.ints for attribute in node.attribute}
        axes = len(sizes.get("pads", ())) // 2
        for name in ("kernel_shape", "strides", "dilations"):
            if axes > 1 and len(sizes.get(name, ())) == 1:
                sizes[name].extend(list(sizes[name]) * (axes - 1))


def _strip(exported: onnx.ModelProto) -> None:
    """Drop what only says how the graph came about, and the shapes that any reader infers by itself."""
    exported.producer_name = exported.producer_version = exported.doc_string = ""
    graph = exported.graph
    del graph.value_info[:]
    for holder in (exported, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        holder.doc_string = ""
        del holder.metadata_props[:]
