"""Post-training quantization and half precision of an exported graph, with ONNX Runtime's own tools.

Source of the method: ONNX Runtime, "Quantize ONNX models",
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, and the choice of types by
processor in the documentation of `onnxruntime.quantization.quantize_static`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.host.architecture import is_arm
from quant_explorer.core.quantspec import FULL_RANGE, Grid, QuantSpec
from quant_explorer.runtimes.onnx_graph.export import nodes_of_layers
from quant_explorer.runtimes.onnx_graph.failures import explain_failure
from quant_explorer.runtimes.onnx_graph.sensitive import sensitive_nodes
from quant_explorer.runtimes.onnxruntime.calibration import CalibrationImages
from quant_explorer.runtimes.onnxruntime.masks import limit_masks
from quant_explorer.runtimes.onnxruntime.saturation import explain_reduced_range
from quant_explorer.runtimes.saturation import exact_by
from quant_explorer.tracing.onnx_program import linear_layers

# Of transposed convolutions that stay in float.
GROUPS_TAKEN_FOR_CHANNELS = "the quantizer takes groups for channels"


@dataclass(frozen=True)
class Converted:
    """A serialized graph, what a reader of the report should know of it, and the grid of INT8."""

    data: bytes
    notes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    grid: Grid = FULL_RANGE


def convert(exported: bytes, candidate: Candidate, calibration: Sequence[Batch]) -> Converted:
    """Return the graph that `export_onnx` gave in the precision that the candidate's spec asks for.

    Raises UnsupportedError when a layer to be kept in float is not in the graph, or when the layers to be
    quantized dynamically share their weights.
    """
    spec = candidate.spec
    if spec.precision == "fp32":
        return Converted(exported, ())
    if spec.precision == "fp16":
        return _halve(onnx.load_from_string(exported), spec)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared, quantized = folder / "prepared.onnx", folder / "quantized.onnx"
        model = _prepare(exported, prepared)
        reason = explain_reduced_range(spec.target)
        reduced = reason is not None
        if spec.activations == "dynamic":
            notes = _quantize_linear(model.graph, candidate, prepared, quantized, reduced=reduced)
        else:
            notes = _quantize(model, spec, calibration, prepared, quantized, reduced=reduced)
        return Converted(
            data=_serialize(onnx.load(quantized)),
            notes=(*notes, reason) if reason else notes,
            needs=exact_by(saturates=reduced),
            grid=Grid(
                weight_levels=64 if reduced else 127,
                transposed_groups="float" if spec.granularity == "per_channel" else "tensor",
            ),
        )


def _serialize(model: onnx.ModelProto) -> bytes:
    # ONNX Runtime infers the shapes again when it loads the file.
    del model.graph.value_info[:]
    for tensor in model.graph.initializer:
        if not tensor.raw_data:
            # Numbers of variable length, so that the file's size would depend on a zero point's value.
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return bytes(model.SerializeToString(deterministic=True))


def _halve(model: onnx.ModelProto, spec: QuantSpec) -> Converted:
    graph = model.graph
    kept = [*nodes_of_layers(graph, spec.float_layers), *_transposes_before_layers(graph)]
    # ONNX Runtime adds up and multiplies what it scatters in FP32 alone.
    kept += [node.name for node in graph.node if node.op_type in ("ScatterElements", "ScatterND")]
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    notes = ["converted by onnxruntime.transformers.float16"]
    if not is_arm():
        notes.append("stored in FP16, but computed in FP32: ONNX Runtime has no FP16 kernels for this CPU")
    return Converted(_serialize(half), tuple(notes))


def _transposes_before_layers(graph: onnx.GraphProto) -> list[str]:
    """Return what exchanges leading axes before a product with weights, as nn.MultiheadAttention does.

    ONNX Runtime joins the two, and dies when it optimizes an FP16 product of that kind (seen in 1.32).
    """
    weights = {item.name for item in graph.initializer}
    read = {node.input[0] for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights}
    return [node.name for node in graph.node if node.op_type == "Transpose" and node.output[0] in read]


def _prepare(exported: bytes, path: Path) -> onnx.ModelProto:
    """Write the graph to `path` with shapes, and simplified, as the quantizers want it.

    Functions such as HardSwish are spelled out as nodes without names; the one that gives the function's
    output gets the name back, so that layers are found.
    """
    source = path.with_name("exported.onnx")
    source.write_bytes(exported)
    quant_pre_process(source, path, skip_symbolic_shape=True)
    names = {node.output[0]: node.name for node in onnx.load_from_string(exported).graph.node}
    model = onnx.load(path)
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        name = names.get(node.output[0], "")
        if not node.name and name not in taken:
            node.name = name
    onnx.save(model, path)
    return model


def _quantize_linear(
    graph: onnx.GraphProto, candidate: Candidate, prepared: Path, quantized: Path, *, reduced: bool
) -> tuple[str, ...]:
    linear = set(linear_layers(candidate.model))
    kept = set(nodes_of_layers(graph, candidate.spec.float_layers))
    # Products of functional calls too, which no layer owns.
    kept |= {node.name for node in graph.node if node.name.partition("/")[0] not in linear}
    _refuse_shared_weights(graph)
    quantize_dynamic(
        prepared,
        quantized,
        op_types_to_quantize=["MatMul"],
        per_channel=candidate.spec.granularity == "per_channel",
        reduce_range=reduced,
        # The quantizer turns a Gemm into a MatMul and an Add first.
        nodes_to_exclude=[*kept, *(f"{name}_MatMul" for name in kept)],
    )
    return ("quantize_dynamic: unsigned 8-bit activations with the range of the batch",)


def _refuse_shared_weights(graph: onnx.GraphProto) -> None:
    # quantize_dynamic transposes the weight of a Gemm in place, once for each Gemm that reads it.
    calls = Counter(node.input[1] for node in graph.node if node.op_type == "Gemm")
    shared = sorted(weight.rpartition(".")[0] for weight, times in calls.items() if times > 1)
    if shared:
        raise UnsupportedError(
            f"linear layers are called more than once ({', '.join(shared)}), which ONNX Runtime's dynamic "
            "quantizer gets wrong; give each call a layer of its own"
        )


def _quantize(
    model: onnx.ModelProto,
    spec: QuantSpec,
    calibration: Sequence[Batch],
    prepared: Path,
    quantized: Path,
    *,
    reduced: bool,
) -> tuple[str, ...]:
    graph = model.graph
    percentile = spec.observer == "histogram"
    arm = is_arm() and spec.target == "native"
    activations = QuantType.QInt8 if arm else QuantType.QUInt8
    transposed = _grouped_transposed(graph) if spec.granularity == "per_channel" else ()
    masked, sensitive = limit_masks(model.graph), sensitive_nodes(model.graph)
    onnx.save(model, prepared)
    with explain_failure("ONNX Runtime's quantizer"):
        quantize_static(
            prepared,
            quantized,
            CalibrationImages(calibration),
            activation_type=activations,
            weight_type=QuantType.QInt8,
            per_channel=spec.granularity == "per_channel",
            reduce_range=reduced,
            nodes_to_exclude=[*nodes_of_layers(graph, spec.float_layers), *transposed, *masked, *sensitive],
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
    if transposed:
        notes.append(f"in float, as {GROUPS_TAKEN_FOR_CHANNELS}: {', '.join(transposed)}")
    if masked:
        notes.append(f"in float, as a mask of attention has no INT8 scale: {', '.join(masked)}")
    if sensitive:
        notes.append(
            f"in float, as divisions, logarithms and roots enlarge rounding errors: {', '.join(sensitive)}"
        )
    return tuple(notes)


def _grouped_transposed(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the nodes that the quantizer gives as many scales as a group has channels, and fails over."""
    return tuple(
        node.name
        for node in graph.node
        if node.op_type == "ConvTranspose"
        and any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    )
