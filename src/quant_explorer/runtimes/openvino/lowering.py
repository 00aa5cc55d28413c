"""A PyTorch module as an OpenVINO model, quantized by NNCF, written as IR.

Sources: OpenVINO, "Convert from ONNX"; NNCF, "Post-training quantization",
https://github.com/openvinotoolkit/nncf/tree/develop/docs/usage/post_training_compression.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import openvino
from openvino._offline_transformations import apply_moc_transformations

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import Observer, QuantSpec
from quant_explorer.runtimes.onnx_graph.export import nodes_of_layers
from quant_explorer.runtimes.onnx_graph.failures import explain_failure
from quant_explorer.runtimes.onnx_graph.sensitive import sensitive_nodes
from quant_explorer.runtimes.openvino.reductions import widen_reductions

# NNCF reports its use over the network unless this is set when it is imported.
os.environ.setdefault("NNCF_CI", "1")

import nncf
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    QuantizationParameters,
)
from nncf.quantization.range_estimator import (
    RangeEstimatorParameters,
    RangeEstimatorParametersSet,
)

_TRANSFORMS = ("DFT", "IDFT", "RDFT", "IRDFT")
# Names by a counter of the process (`Constant_99999`), unlike those of layers, which have a slash or dot.
_COUNTED = re.compile(r"\w+_\d+")


def convert(data: bytes) -> openvino.Model:
    """Return the OpenVINO model of a serialized ONNX file, with a free number of images.

    As `openvino.convert_model` does, which would report its use over the network. Raises UnsupportedError
    for a Fourier transform.
    """
    model = openvino.Core().read_model(data)
    _refuse_transforms(model)
    widen_reductions(model)
    apply_moc_transformations(model, cf=False)
    return model


def _refuse_transforms(model: openvino.Model) -> None:
    # Seen in OpenVINO 2026.4: real parts of exported transforms have another shape, or values of the input.
    names = [
        node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in _TRANSFORMS
    ]
    if names:
        raise UnsupportedError(
            f"OpenVINO's CPU plugin computes something else behind Fourier transforms ({', '.join(names)}); "
            "write them as products with their matrix, or choose another runtime"
        )


def run_once(data: bytes) -> Callable[[Batch], Batch]:
    """Return what computes a serialized ONNX file in FP32."""

    def run(images: Batch) -> Batch:
        compiled = openvino.compile_model(convert(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        logits: Batch = compiled(images)[0]
        return logits

    return run


@explain_failure("NNCF", nncf.InternalError, nncf.ValidationError)
def quantize(data: bytes, spec: QuantSpec, calibration: Sequence[Batch], *, reduced: bool) -> openvino.Model:
    """Return the model with INT8 weights and fake-quantized activations, calibrated on all of `calibration`.

    `reduced` gives weights 7 bits, so that no kernel overflows, and leaves products of two activations, which
    have 8 on either side, in float. Raises UnsupportedError for a layer of `spec.float_layers` that is not
    in the graph, and for a graph that NNCF fails on.
    """
    nncf.set_log_level(logging.ERROR)
    model = convert(data)
    ignored = float_operations(model, data, spec.float_layers)
    graph = onnx.load_from_string(data).graph
    _refuse_shared_factors(graph)
    ignored += _operations(model, graph, sensitive_nodes(graph))
    # The CPU plugin fails over recurrent layers whose weights are quantized.
    ignored += [node.get_friendly_name() for node in model.get_ordered_ops() if _is_recurrent(node)]
    if reduced:
        ignored += products_of_activations(model)
    return nncf.quantize(
        model,
        nncf.Dataset(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(calibration),
        # The fast one compares a layer's mean output with that for an image of channel means, and so takes
        # what padding does at the edges for an error of quantization: small feature maps lose by it.
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(names=ignored),
        advanced_parameters=AdvancedQuantizationParameters(
            # NNCF's default halves the range of the first layer's weights alone. Depthwise convolutions keep
            # theirs in any case: their kernels do not overflow.
            overflow_fix=nncf.OverflowFix.ENABLE if reduced else nncf.OverflowFix.DISABLE,
            activations_range_estimator_params=range_estimator(spec.observer),
            # NNCF would scale the inputs of depthwise convolutions per channel, each by the minimum and
            # maximum of few values: EfficientNet-Lite2 comes much nearer to FP32 with one scale.
            activations_quantization_params=QuantizationParameters(per_channel=False),
            weights_quantization_params=QuantizationParameters(per_channel=spec.granularity == "per_channel"),
        ),
    )


def _refuse_shared_factors(graph: onnx.GraphProto) -> None:
    # Seen in OpenVINO 2026.4, 3 dB: copies of the weight are merged again when the files are opened.
    readers: dict[str, list[str]] = {item.name: [] for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Einsum":
            for name in set(node.input) & readers.keys():
                readers[name].append(node.name)
    shared = sorted(name for names in readers.values() if len(names) > 1 for name in names)
    if shared:
        raise UnsupportedError(
            f"OpenVINO computes something else of INT8 einsums that share a weight ({', '.join(shared)}); "
            "choose FP32, or another runtime"
        )


def products_of_activations(model: openvino.Model) -> list[str]:
    """Return the names of attention, and of matrix products of which neither side is a constant."""
    return [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in ("MatMul", "ScaledDotProductAttention")
        and not any(_is_constant(operation.input_value(side).get_node()) for side in (0, 1))
    ]


def _is_constant(node: openvino.Node) -> bool:
    pending = [node]
    while pending:
        node = pending.pop()
        if node.get_type_name() == "Parameter":
            return False
        pending += [value.get_node() for value in node.input_values()]
    return True


def range_estimator(observer: Observer) -> RangeEstimatorParameters:
    """Return how NNCF finds the range of an activation over all calibration images."""
    return {
        "minmax": RangeEstimatorParametersSet.MINMAX,
        "histogram": RangeEstimatorParametersSet.HISTOGRAM,
    }[observer]


def _is_recurrent(node: openvino.Node) -> bool:
    """Say whether a node is an LSTM, GRU or RNN over a sequence."""
    return bool(node.get_type_name() in ("LSTMSequence", "GRUSequence", "RNNSequence"))


def float_operations(model: openvino.Model, data: bytes, layers: Sequence[str]) -> list[str]:
    """Return the names of the operations that layers (qualified names of the float model) became.

    Raises UnsupportedError for a layer that has none.
    """
    graph = onnx.load_from_string(data).graph
    found: list[str] = []
    for layer in layers:
        operations = _operations(model, graph, nodes_of_layers(graph, (layer,)))
        if not operations:
            raise UnsupportedError(f"layer {layer!r} is not in the converted graph and cannot stay in float")
        found += operations
    return found


def _operations(model: openvino.Model, graph: onnx.GraphProto, nodes: Sequence[str]) -> list[str]:
    # A node that gives the model's output is named after the latter.
    names = {*nodes, *(name for node in graph.node if node.name in nodes for name in node.output)}
    # `<node>/WithoutBiases` and `<node>`, the addition of the bias.
    pending = [
        operation
        for operation in model.get_ordered_ops()
        if operation.get_friendly_name().removesuffix("/WithoutBiases") in names
    ]
    found: dict[str, None] = {}
    while pending:
        operation = pending.pop()
        found[operation.get_friendly_name()] = None
        # Of several operations that a node became, only the last has its name; the others are counted.
        pending += [
            maker
            for maker in (value.get_node() for value in operation.input_values())
            if _COUNTED.fullmatch(maker.get_friendly_name()) and not _is_constant(maker)
        ]
    return list(found)


def save(model: openvino.Model, path: Path, *, half: bool) -> None:
    """Write `path` and the weights beside it; `half` stores float weights as FP16.

    Names that are numbered by what the process did before are numbered again, and what only says how the
    model came about is left out: equal payloads have equal sizes.
    """
    operations = {operation.get_friendly_name(): operation for operation in model.get_ordered_ops()}
    numbered = {
        name: f"{operation.get_type_name()}_{number}"
        for number, (name, operation) in enumerate(operations.items())
        if _COUNTED.fullmatch(name)
    }
    for name, operation in operations.items():
        # NNCF names what it inserts after the operation beside it, with a slash.
        beside, slash, inserted = name.partition("/")
        operation.set_friendly_name(f"{numbered.get(beside, beside)}{slash}{inserted}")
    information = model.get_rt_info()
    for key in list(information.keys()):
        del information[key]
    openvino.save_model(model, path, compress_to_fp16=half)
    # No program needs the indentation, which is a sixth of the file.
    path.write_text(re.sub(r">\s+<", "><", path.read_text()))
