"""Post-training quantization and half precision of an exported graph, with ONNX Runtime's own tools.

Source of the method: ONNX Runtime, "Quantize ONNX models",
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, and the choice of types by
processor in the documentation of `onnxruntime.quantization.quantize_static`.
"""

from __future__ import annotations

import functools
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes.onnx_export import INPUT_NAME, nodes_of_layers

# ONNX Runtime keeps every activation of a step until its histograms are made.
_IMAGES_A_STEP = 4
_REDUCED_RANGE = (
    "weights have 7 bits: on this CPU ONNX Runtime's kernels overflow with 8 bits (no VNNI instructions)"
)
_ARM = ("aarch64", "arm64")


@dataclass(frozen=True)
class Converted:
    """A serialized graph and what a reader of the report should know of it."""

    data: bytes
    notes: tuple[str, ...]


def convert(exported: bytes, candidate: Candidate, calibration: Sequence[Batch]) -> Converted:
    """Return the graph that `export_onnx` gave in the precision that the candidate's spec asks for.

    Raises UnsupportedError when a layer to be kept in float is not in the graph.
    """
    spec = candidate.spec
    if spec.precision == "fp32":
        return Converted(exported, ())
    if spec.precision == "fp16":
        return _halve(onnx.load_from_string(exported), spec)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared, quantized = folder / "prepared.onnx", folder / "quantized.onnx"
        graph = _prepare(exported, prepared)
        if spec.activations == "dynamic":
            notes = _quantize_linear(graph, candidate, prepared, quantized)
        else:
            notes = _quantize(graph, spec, calibration, prepared, quantized)
        return Converted(_serialize(onnx.load(quantized)), notes)


def _serialize(model: onnx.ModelProto) -> bytes:
    # ONNX Runtime infers the shapes again when it loads the file.
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:
        if not tensor.raw_data:
            # Numbers of variable length, so that the file's size would depend on a zero point's value.
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return bytes(model.SerializeToString(deterministic=True))


def _halve(model: onnx.ModelProto, spec: QuantSpec) -> Converted:
    kept = list(nodes_of_layers(model.graph, spec.float_layers))
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    notes = ["converted by onnxruntime.transformers.float16"]
    if platform.machine().lower() not in _ARM:
        notes.append("stored in FP16, but computed in FP32: ONNX Runtime has no FP16 kernels for this CPU")
    return Converted(_serialize(half), tuple(notes))


def _prepare(exported: bytes, path: Path) -> onnx.GraphProto:
    """Write the graph to `path` with shapes, and simplified, as the quantizers want it.

    Functions such as HardSwish are spelled out as nodes without names; the one that gives the function's
    output gets the name back, so that layers are found.
    """
    source = path.with_name("exported.onnx")
    source.write_bytes(exported)
    quant_pre_process(source, path, skip_symbolic_shape=True)
    names = {node.output[0]: node.name for node in onnx.load_from_string(exported).graph.node}
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = names.get(node.output[0], node.name)
    onnx.save(model, path)
    return model.graph


def _quantize_linear(
    graph: onnx.GraphProto, candidate: Candidate, prepared: Path, quantized: Path
) -> tuple[str, ...]:
    layers = {name for name, module in candidate.model.named_modules() if isinstance(module, nn.Linear)}
    inside = set(nodes_of_layers(graph, candidate.spec.float_layers))
    nodes = [
        node.name
        for node in graph.node
        if node.op_type in ("Gemm", "MatMul")
        and node.name.partition("/")[0] in layers
        and node.name not in inside
    ]
    reduced = saturates()
    quantize_dynamic(
        prepared,
        quantized,
        op_types_to_quantize=["MatMul"],
        per_channel=candidate.spec.granularity == "per_channel",
        reduce_range=reduced,
        # The quantizer turns a Gemm into a MatMul and an Add first.
        nodes_to_quantize=[*nodes, *(f"{name}_MatMul" for name in nodes)],
    )
    return (
        "quantize_dynamic: unsigned 8-bit activations with the range of the batch",
        *((_REDUCED_RANGE,) if reduced else ()),
    )


def _quantize(
    graph: onnx.GraphProto, spec: QuantSpec, calibration: Sequence[Batch], prepared: Path, quantized: Path
) -> tuple[str, ...]:
    percentile = spec.observer == "histogram"
    activations = QuantType.QInt8 if platform.machine().lower() in _ARM else QuantType.QUInt8
    reduced = saturates()
    quantize_static(
        prepared,
        quantized,
        _Reader(calibration),
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=spec.granularity == "per_channel",
        reduce_range=reduced,
        nodes_to_exclude=list(nodes_of_layers(graph, spec.float_layers)),
        calibrate_method=CalibrationMethod.Percentile if percentile else CalibrationMethod.MinMax,
        # Whatever the method, the stride is how many of the reader's items are held at a time.
        extra_options={"CalibStridedMinMax": 1, "CalibTensorRangeSymmetric": False},
    )
    notes = [
        f"quantize_static, QDQ: {activations.name[1:]} activations, Int8 weights with scale max|w| / "
        f"{64 if reduced else 127}, ranges by "
        + ("the 99.999th percentile of a histogram" if percentile else "minimum and maximum")
    ]
    if spec.activation_ranges:
        notes.append("activation ranges are calibrated; those learned in training are not used")
    return (*notes, *((_REDUCED_RANGE,) if reduced else ()))


class _Reader:
    """The calibration images, a few at a time: an `onnxruntime.quantization.CalibrationDataReader`."""

    def __init__(self, calibration: Sequence[Batch]) -> None:
        self._steps = [
            batch[start : start + _IMAGES_A_STEP]
            for batch in calibration
            for start in range(0, len(batch), _IMAGES_A_STEP)
        ]
        self._left: Iterator[Batch] = iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self._steps[start_index:end_index])

    def get_next(self) -> dict[str, Batch] | None:
        step = next(self._left, None)
        return None if step is None else {INPUT_NAME: step}


@functools.cache
def saturates() -> bool:
    """Say whether products of unsigned and signed 8-bit numbers overflow on this CPU.

    Kernels without VNNI add pairs of them in 16 bits. Found by multiplying the largest values there are.
    """
    inner = 128
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "largest",
        [value("a", onnx.TensorProto.UINT8, [16, inner]), value("b", onnx.TensorProto.INT8, [inner, 16])],
        [value("c", onnx.TensorProto.INT32, [16, 16])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"a": np.full((16, inner), 255, np.uint8), "b": np.full((inner, 16), 127, np.int8)}
    return bool((session.run(None, feed)[0] != inner * 255 * 127).any())
