"""Multiply-accumulates of an ExecuTorch program by precision, and the kernels that a profiled run names.

XNNPACK makes its operators from a graph of typed tensors that is stored in the .pte file, and refuses what it
has no kernel for: the types in the graph are those that run. A layer that was not delegated to XNNPACK is
a call of an ATen kernel in the execution plan.
Source: `program.fbs` and XNNPACK's `schema.fbs` (both in ExecuTorch's wheel), and ExecuTorch, "ETDump",
https://docs.pytorch.org/executorch/stable/etdump.html.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import executorch.backends.xnnpack.serialization as xnnpack_serialization
import msgspec
import torch
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
from executorch.devtools import Inspector
from executorch.exir._serialize._flatbuffer import _flatc_decompile
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.scalar_type import ScalarType
from executorch.exir.schema import Bool, DelegateCall, ExecutionPlan, KernelCall, Program, Tensor
from executorch.extension.pybindings import _C

from quant_explorer.core.contracts import Batch
from quant_explorer.core.measurement import Executed

# A layer computes in INT8 when its input is INT8: XNNPACK has no kernel that mixes it with float weights.
_XNNPACK_PRECISIONS = {
    "xnn_datatype_fp32": "fp32",
    "xnn_datatype_fp16": "fp16",
    "xnn_datatype_bf16": "bf16",
    "xnn_datatype_qint8": "int8",
    "xnn_datatype_quint8": "int8",
    "xnn_datatype_qdint8": "int8",
    "xnn_datatype_qpint8": "int8",
}
_ATEN_PRECISIONS = {ScalarType.FLOAT: "fp32", ScalarType.HALF: "fp16", ScalarType.BFLOAT16: "bf16"}
# Which argument of a matrix product has the summed dimension as its last.
_ATEN_PRODUCTS = {"aten::linear": 0, "aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1}


def count_macs(file: Path, methods: Sequence[str], batch: Batch) -> Executed:
    """Run `batch` (n, channels, height, width) once through `methods`, in turn; counts are per image.

    Each method takes as many images as it was written for, together all of the batch.
    """
    program = deserialize_pte_binary(file.read_bytes()).program
    plans = {plan.name: plan for plan in program.execution_plan}
    macs: Counter[str] = Counter()
    in_float: Counter[str] = Counter()
    for method in methods:
        for operator, precision, count in _layers(program, plans[method]):
            macs[precision] += count
            if precision != "int8":
                in_float[operator.removeprefix("aten::")] += count
    return Executed(
        macs={precision: total // len(batch) for precision, total in sorted(macs.items())},
        kernels=dict(sorted(_profile(file, methods, batch).items())),
        in_float=tuple(name for name, _ in in_float.most_common()) if macs["int8"] else (),
    )


def _layers(program: Program, plan: ExecutionPlan) -> Iterator[tuple[str, str, int]]:
    """Yield operator, precision and count of each product."""
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if isinstance(call, KernelCall):
                yield from _aten_layer(plan, call)
            elif isinstance(call, DelegateCall):
                delegate = plan.delegates[call.delegate_index]
                graph = _read_graph(program.backend_delegate_data[delegate.processed.index].data)
                yield from _xnnpack_layers(graph)


def _aten_layer(plan: ExecutionPlan, call: KernelCall) -> Iterator[tuple[str, str, int]]:
    name = plan.operators[call.op_index].name
    arguments = [plan.values[index].val for index in call.args]
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if name == "aten::convolution":
        inputs, weight, output = tensors[0], tensors[1], tensors[-1]
        transposed = isinstance(arguments[6], Bool) and arguments[6].bool_val
        # Each weight of a filter meets every output, or every input of a transposed convolution.
        met = inputs if transposed else output
        yield name, _aten_precision(inputs), math.prod(met.sizes) * math.prod(weight.sizes[1:])
    elif name in _ATEN_PRODUCTS:
        factor = tensors[_ATEN_PRODUCTS[name]]
        yield name, _aten_precision(factor), math.prod(tensors[-1].sizes) * factor.sizes[-1]


def _aten_precision(tensor: Tensor) -> str:
    name: str = tensor.scalar_type.name.lower()
    return _ATEN_PRECISIONS.get(tensor.scalar_type, name)


class _Tensor(msgspec.Struct):
    id_out: int = -1
    datatype: str = ""
    dims: list[int] = []


class _AnyTensor(_Tensor):
    """The fields of a plain tensor, or one more level in a quantized one."""

    tensor_value: _Tensor | None = None


class _Value(msgspec.Struct):
    xvalue_union: _AnyTensor


class _Operator(msgspec.Struct):
    input1_id: int = -1
    input2_id: int = -1
    filter_id: int = -1
    output_id: int = -1
    kernel_height: int = 0
    kernel_width: int = 0
    group_input_channels: int = 0
    group_output_channels: int = 0


class _Node(msgspec.Struct):
    xnode_union_type: str
    xnode_union: _Operator


class _Graph(msgspec.Struct):
    xnodes: list[_Node]
    xvalues: list[_Value]


def _read_graph(delegate: bytes) -> _Graph:
    header = XNNHeader.from_bytes(delegate[: XNNHeader.EXPECTED_LENGTH])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema = resources.files(xnnpack_serialization).joinpath("schema.fbs").read_bytes()
        (folder / "schema.fbs").write_bytes(schema)
        end = header.flatbuffer_offset + header.flatbuffer_size
        (folder / "graph.bin").write_bytes(delegate[header.flatbuffer_offset : end])
        _flatc_decompile(name, str(folder / "schema.fbs"), str(folder / "graph.bin"))
        text = (folder / "graph.json").read_bytes()
    # The bounds of a clamp that is open at one end, which flatc writes as no JSON parser reads.
    return msgspec.json.decode(re.sub(rb":\s*[+-]?(inf|nan)\b", b": null", text), type=_Graph)


def _xnnpack_layers(graph: _Graph) -> Iterator[tuple[str, str, int]]:
    values = [value.xvalue_union.tensor_value or value.xvalue_union for value in graph.xvalues]
    tensors = {value.id_out: value for value in values}
    for node in graph.xnodes:
        layer = node.xnode_union
        kernel = layer.kernel_height * layer.kernel_width
        match node.xnode_union_type:
            case "XNNConv2d" | "XNNDepthwiseConv2d":
                count = math.prod(tensors[layer.output_id].dims) * kernel * layer.group_input_channels
            case "XNNConvTranspose2d":
                count = math.prod(tensors[layer.input1_id].dims) * kernel * layer.group_output_channels
            case "XNNFullyConnected" | "XNNBatchMatrixMultiply":
                count = math.prod(tensors[layer.output_id].dims) * tensors[layer.input1_id].dims[-1]
            case _:
                continue
        datatype = tensors[layer.input1_id].datatype
        operator = node.xnode_union_type.removeprefix("XNN")
        yield operator, _XNNPACK_PRECISIONS.get(datatype, datatype), count


def _profile(file: Path, methods: Sequence[str], batch: Batch) -> Counter[str]:
    program = _C._load_program(str(file), enable_etdump=True)
    start = 0
    for method in methods:
        size = int(program.method_meta(method).input_tensor_meta(0).sizes()[0])
        images = torch.from_numpy(batch[start : start + size].copy())
        program.load_method(method)((images,))
        start += size
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "profile.etdp")
        program.write_etdump_result_to_file(path)
        blocks = Inspector(etdump_path=path).event_blocks
    # XNNPACK numbers the kernels of a kind; what is neither XNNPACK's nor a kernel's call is their frame.
    calls: Counter[str] = Counter()
    for block in blocks:
        for event in block.events:
            if event.is_delegated_op or event.name.startswith("native_call_"):
                calls[re.sub(r" #\d+$", "", event.name)] += len(event.perf_data.raw)
    return calls
