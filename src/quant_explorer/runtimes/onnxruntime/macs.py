"""Multiply-accumulates by precision, counted from the profile that ONNX Runtime writes of the kernels it ran.

Source of the method: ONNX Runtime, "Profiling tools",
https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from onnxruntime import InferenceSession, SessionOptions

from quant_explorer.core.contracts import Batch
from quant_explorer.core.measurement import Executed

_KERNEL = "_kernel_time"
_PRECISIONS = {
    **dict.fromkeys(("int8", "uint8"), "int8"),
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
}
_CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}
_PRODUCTS = {
    *("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul"),
    *("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
}
# Their first operands are the values (length, images, inputs), both weights, and biases in two dimensions.
_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}


class _Arguments(msgspec.Struct):
    op_name: str = ""
    input_type_shape: tuple[dict[str, tuple[int, ...]], ...] = ()
    output_type_shape: tuple[dict[str, tuple[int, ...]], ...] = ()


class _Event(msgspec.Struct):
    name: str
    cat: str
    args: _Arguments = msgspec.field(default_factory=_Arguments)


@dataclass(frozen=True)
class _Tensor:
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def count_macs(model: Path, feed: Mapping[str, Batch], options: Callable[[], SessionOptions]) -> Executed:
    """Run `model` once on the images of `feed` in each of two new sessions; counts are per image.

    The first, with `options` as they are, says which kernels ran. The second keeps tensors as the model
    has them, so that their shapes can be counted: packed weights are not in the profile, and the blocked
    layout of float convolutions pads channels. Neither changes in which precision a node is run.
    """
    as_run = _profile(model, feed, options(), keep_layout=False)
    countable = options()
    countable.add_session_config_entry("session.disable_prepacking", "1")
    macs: Counter[str] = Counter()
    in_float: Counter[str] = Counter()
    for event in _profile(model, feed, countable, keep_layout=True):
        name = event.name.removesuffix(_KERNEL)
        einsum = event.args.op_name == "Einsum"
        precision, count = _einsum_macs(event.args, name) if einsum else _macs(event.args)
        macs[precision] += count
        if precision != "int8" and count:
            layer, _, operator = name.rpartition("/")
            in_float[f"{operator} of layer {layer!r}" if layer else operator] += count
    images = len(next(iter(feed.values())))
    return Executed(
        macs={precision: total // images for precision, total in sorted(macs.items()) if total},
        kernels=dict(sorted(Counter(event.args.op_name for event in as_run).items())),
        in_float=tuple(name for name, _ in in_float.most_common()) if macs["int8"] else (),
    )


def _profile(
    model: Path, feed: Mapping[str, Batch], options: SessionOptions, *, keep_layout: bool
) -> list[_Event]:
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"] if keep_layout else None,
        )
        session.run(None, feed)
        events = msgspec.json.decode(Path(session.end_profiling()).read_bytes(), type=list[_Event])
    return [event for event in events if event.cat == "Node" and event.name.endswith(_KERNEL)]


def _macs(node: _Arguments) -> tuple[str, int]:
    """Return the precision of the second operand, which is the weight or its like, and the count."""
    if node.op_name not in _CONVOLUTIONS | _PRODUCTS | _RECURRENT | {"ConvTranspose"}:
        return "", 0
    # Scales, zero points and biases have at most one dimension.
    operands = [tensor for tensor in _tensors(node.input_type_shape) if len(tensor.shape) > 1]
    first, second = operands[:2]
    output = _tensors(node.output_type_shape)[0]
    precision = _PRECISIONS.get(second.kind, second.kind)
    if node.op_name in _RECURRENT:
        # Every step of every image meets all weights of inputs and of states.
        return precision, math.prod(first.shape[:2]) * (second.size + operands[2].size)
    if node.op_name in _PRODUCTS:
        return precision, output.size * _inner_size(first, output)
    # Each weight of a filter meets every output, or every input of a transposed convolution.
    met = first if node.op_name == "ConvTranspose" else output
    return precision, met.size * math.prod(second.shape[1:])


def _inner_size(first: _Tensor, output: _Tensor) -> int:
    """Return k of a product (..., m, k) x (..., k, n), whose first operand may be given transposed.

    Also as (m, ..., k), where a fused product transposes: its batches are those of the output then.
    """
    if math.prod(first.shape[:-2]) in (1, math.prod(output.shape[:-2])):
        return math.prod(first.shape[-2:]) // output.shape[-2]
    return first.size * output.shape[-1] // output.size


def _einsum_macs(node: _Arguments, name: str) -> tuple[str, int]:
    """Return the count of a product: each combination of the indices is one multiply-accumulate."""
    tensors = _tensors(node.input_type_shape)
    # As the exporter names it: `layer/Einsum[ij.jk-ik]`, followed by a number or not.
    operands = name.partition("[")[2].partition("-")[0].split(".")
    ranks = [len(tensor.shape) for tensor in tensors]
    if len(ranks) != 2 or [len(operand) for operand in operands] != ranks:
        return "", 0
    sizes = {
        index: size
        for indices, tensor in zip(operands, tensors, strict=True)
        for index, size in zip(indices, tensor.shape, strict=True)
    }
    return _PRECISIONS.get(tensors[1].kind, tensors[1].kind), math.prod(sizes.values())


def _tensors(listed: tuple[dict[str, tuple[int, ...]], ...]) -> list[_Tensor]:
    return [_Tensor(kind, shape) for item in listed for kind, shape in item.items()]
