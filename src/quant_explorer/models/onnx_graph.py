"""The graph of an `.onnx` file: what it may hold, names of its layers, and any number of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data
from torch import nn

from quant_explorer.core.errors import ModelError, explain
from quant_explorer.core.units import format_count
from quant_explorer.models.architecture import Shape
from quant_explorer.tracing.onnx_program import INPUT_NAME, OUTPUT_NAME, OnnxProgram

# Quantizers of ONNX Runtime give channels scales of their own since this version of the operators.
_LEAST_OPSET, _CONVERTED_OPSET = 13, 17
_OWN_DOMAINS = ("", "ai.onnx")
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_LINEAR = ("Gemm", "MatMul")
_WEIGHTED = (*_LINEAR, "Conv", "ConvTranspose")
_FLOATS = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
# Protocol buffers hold no more.
_LARGEST_BYTES = 2**31 - 2**20
_CHECKED_IMAGES = 3
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class OnnxGraph:
    """A checked file. `shape` is (channels, height, width) with None for a size that is free."""

    path: Path
    model: onnx.ModelProto
    shape: tuple[int | None, int | None, int | None]
    metadata: Mapping[str, str]
    notes: tuple[str, ...]
    single: bool

    def build(self, shape: Shape) -> nn.Module:
        """Return the module; `shape` is that of an image.

        A file for one image is made to take any number. Raises ModelError where it then computes something
        else, or where ONNX Runtime cannot compute it.
        """
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(_CHECKED_IMAGES, *shape, generator=generator)
        alone = self._run(OnnxProgram(self.model.SerializeToString(), {}, ()), images, apart=True)
        weights, linear = _name_nodes(self.model.graph)
        if self.single:
            _free_batch(self.model.graph)
        module = OnnxProgram(self.model.SerializeToString(deterministic=True), weights, linear)
        found = self._run(module, images, apart=False)
        if found.shape != alone.shape or not torch.allclose(
            found, alone, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
        ):
            raise ModelError(
                f"{self.path}: gives other outputs for {_CHECKED_IMAGES} images than for each alone. "
                "Allowed: a graph for any number of images; export it with a dynamic first dimension."
            )
        return module

    def _run(self, module: OnnxProgram, images: torch.Tensor, *, apart: bool) -> torch.Tensor:
        try:
            if apart:
                return torch.cat([module(image) for image in images.split(1)])
            found: torch.Tensor = module(images)
        except Exception as error:  # ONNX Runtime raises types of its own for each fault of a file
            number = 1 if apart else len(images)
            raise ModelError(
                f"{self.path}: ONNX Runtime cannot compute it for {format_count(number, 'image')} of "
                f"shape {tuple(images.shape[1:])} ({explain(error)})"
            ) from error
        return found


def read_onnx(path: Path) -> OnnxGraph:
    """Read and check a file; its weights may lie in files beside it, in its folder and nowhere else.

    Raises ModelError for one that cannot be read, leaves its folder, is quantized already, has operators of
    others or more than one input or output.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ModelError(f"{path}: not a readable ONNX file ({explain(error)})") from error
    if not model.graph.node:
        raise ModelError(f"{path}: not a readable ONNX file, for it has no operators")
    _load_external(path, model)
    notes: list[str] = []
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_operators(path, model)
    model = _convert(path, model, notes)
    shape, single = _check_ends(path, model.graph)
    if single:
        notes.append(f"Model: {path.name} is for one image at a time, and was made to take any number")
    metadata = {item.key: item.value for item in model.metadata_props}
    del model.metadata_props[:]
    del model.graph.value_info[:]
    return OnnxGraph(path, model, shape, metadata, tuple(notes), single)


def _load_external(path: Path, model: onnx.ModelProto) -> None:
    folder = path.resolve().parent
    total = path.stat().st_size
    for tensor in _tensors(model):
        if not uses_external_data(tensor):
            continue
        entries = {item.key: item.value for item in tensor.external_data}
        location = entries.get("location", "")
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise ModelError(
                f"{path}: the weights {tensor.name!r} are in {location!r}, outside of its folder. "
                f"Allowed: files in {folder}."
            )
        if not file.is_file():
            raise ModelError(f"{path}: the weights {tensor.name!r} are in {location!r}, which is not there")
        try:
            start, length = int(entries.get("offset", 0)), int(entries.get("length", file.stat().st_size))
        except ValueError as error:
            raise ModelError(f"{path}: {tensor.name!r} has no place in {location!r} ({error})") from error
        if start < 0 or length < 0 or start + length > file.stat().st_size:
            raise ModelError(f"{path}: {location!r} ends before the weights {tensor.name!r} do")
        total += length
    if total > _LARGEST_BYTES:
        raise ModelError(f"{path}: {total:,} bytes with its weights. Allowed: {_LARGEST_BYTES:,}.")
    load_external_data_for_model(model, str(folder))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    for node in (*nodes, *(node for function in model.functions for node in function.node)):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    foreign = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _OWN_DOMAINS}
    if foreign:
        raise ModelError(
            f"{path}: has operators of others: {', '.join(sorted(foreign))}. Allowed: those of ONNX itself."
        )
    quantized = {node.op_type for node in nodes if node.op_type in _QUANTIZED or node.op_type[:2] == "QL"}
    if quantized:
        raise ModelError(
            f"{path}: is quantized already ({', '.join(sorted(quantized))}). Allowed: the FP32 model, which "
            "is what variants are made of and compared with."
        )
    kinds = {
        onnx.TensorProto.DataType.Name(item.data_type)
        for item in _tensors(model)
        if item.data_type in _FLOATS
    }
    if kinds:
        raise ModelError(f"{path}: holds {', '.join(sorted(kinds))}. Allowed: FLOAT, that is float32.")


def _convert(path: Path, model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    version = next((item.version for item in model.opset_import if item.domain in _OWN_DOMAINS), 0)
    if version >= _LEAST_OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, _CONVERTED_OPSET)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path}: opset {version} cannot be converted ({explain(error)}). Allowed: opset "
            f"{_LEAST_OPSET} or newer."
        ) from error
    notes.append(f"Model: {path.name} was converted from opset {version} to {_CONVERTED_OPSET}")
    return converted


def _check_ends(path: Path, graph: onnx.GraphProto) -> tuple[tuple[int | None, int | None, int | None], bool]:
    """Check input and output, give them their names; return the shape of an image, and if it is alone."""
    weights = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        ends = (
            f"inputs {', '.join(i.name for i in inputs)}; outputs {', '.join(o.name for o in graph.output)}"
        )
        raise ModelError(
            f"{path}: has {ends}. Allowed: one of each, images and logits; onnx.utils.extract_model cuts "
            "them out."
        )
    kind = inputs[0].type.tensor_type
    sizes = [item.dim_value or None for item in kind.shape.dim]
    shown = f"{onnx.TensorProto.DataType.Name(kind.elem_type)} {tuple(size or 'n' for size in sizes)}"
    if kind.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4:
        raise ModelError(
            f"{path}: its input {inputs[0].name!r} is {shown}. Allowed: FLOAT (n, channels, h, w)."
        )
    batch, channels, height, width = sizes
    if channels not in (None, 1, 3):
        raise ModelError(
            f"{path}: its input {inputs[0].name!r} is {shown}. Allowed: 1 or 3 channels before height and "
            "width; put a Transpose in front of a graph with channels last."
        )
    if batch not in (None, 1):
        raise ModelError(
            f"{path}: takes {batch} images at a time. Allowed: any number, or one; export it so."
        )
    _rename(graph, {inputs[0].name: INPUT_NAME, graph.output[0].name: OUTPUT_NAME})
    # Weights that are inputs too could be replaced at each call, so that nothing folds them.
    image = inputs[0]
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(image)
    del graph.input[:]
    graph.input.append(kept)
    return (channels, height, width), batch == 1


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    clashing = {new: f"{new}_of_file" for old, new in names.items() if old != new}
    renamed = {**clashing, **names}
    for inner in _graphs(graph):
        for node in inner.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
        for item in (*inner.input, *inner.output, *inner.initializer):
            item.name = renamed.get(item.name, item.name)


def _free_batch(graph: onnx.GraphProto) -> None:
    """Let the first dimension be any number, also where a Reshape has a 1 for it."""
    for item in (*graph.input, *graph.output):
        if item.type.tensor_type.shape.dim:
            item.type.tensor_type.shape.dim[0].dim_param = "batch"
    constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    stored = {item.name: item for item in graph.initializer}
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape":
            continue
        tensor = stored.get(node.input[1])
        if tensor is None and node.input[1] in constants:
            tensor = next(
                (item.t for item in constants[node.input[1]].attribute if item.name == "value"), None
            )
        if tensor is None:
            continue
        sizes = numpy_helper.to_array(tensor)
        if sizes.size and sizes[0] == 1 and 0 not in sizes:
            # 0 takes over the size that the operand has there, unless an attribute makes it a size.
            kept = [item for item in node.attribute if item.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
            name = f"{node.input[1]}_any_{number}"
            graph.initializer.append(numpy_helper.from_array(np.array([0, *sizes[1:]], np.int64), name))
            node.input[1] = name


def _name_nodes(graph: onnx.GraphProto) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Name nodes `<layer>/<operator>`; return the weights of layers by name, and which are linear."""
    stored = {item.name: item for item in graph.initializer}
    weights: dict[str, torch.Tensor] = {}
    linear: list[str] = []
    for number, node in enumerate(graph.node):
        weight = next((stored[name] for name in node.input[:2] if name in stored), None)
        if node.op_type not in _WEIGHTED or weight is None:
            node.name = f"/{node.op_type}_{number}"
            continue
        owner, _, leaf = weight.name.rpartition(".")
        path = node.name.strip("/").removesuffix(f"/{node.op_type}")
        layer = (
            (owner if leaf == "weight" else path or f"{node.op_type}_{number}").replace("/", ".").strip(".")
        )
        layer = layer if layer and layer not in weights else f"{layer}_{number}"
        # Copied, because NumPy's view of a file cannot be written to.
        weights[layer] = torch.from_numpy(numpy_helper.to_array(weight).copy())
        if node.op_type in _LINEAR:
            linear.append(layer)
        node.name = f"{layer}/{node.op_type}"
    return weights, tuple(linear)
