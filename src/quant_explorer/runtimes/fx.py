"""FX graph mode quantization: the INT8 of `eager` and `torchscript`.

PyTorch has announced that it will remove `torch.ao.quantization`; this module is for where it is there.
Source: PyTorch, `torch.ao.quantization.quantize_fx`,
https://docs.pytorch.org/docs/2.9/quantization-support.html.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import torch
from torch import nn
from torch.ao import quantization
from torch.ao.nn import intrinsic as nni
from torch.ao.quantization import quantize_fx
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import ActivationRange, QuantSpec
from quant_explorer.runtimes import fusion
from quant_explorer.runtimes.eager_lowering import Lowered, quantized_engine

FULL_ACTIVATION_BITS = 8
REDUCED_ACTIVATION_BITS = 7


def fuse(model: nn.Module, example: Batch) -> torch.fx.GraphModule:
    """Fold batch norms into convolutions and join ReLUs, and check the result on `example` (n, C, H, W).

    Raises UnsupportedError when the model cannot be traced or the fused graph computes something else.
    """
    with fusion.explain(*fusion.TRACING):
        fused: torch.fx.GraphModule = quantize_fx.fuse_fx(copy.deepcopy(model).eval())
    fusion.check(fused, model, example)
    return fused


def quantize(candidate: Candidate, calibration: Sequence[Batch], engine: str) -> Lowered:
    """Lower a float model to INT8 modules of `engine`, dynamic or static as the spec asks.

    Static ranges are those of the spec (learned in training) where it has them, otherwise observed on
    `calibration`. Raises UnsupportedError when the model cannot be traced.
    """
    spec = candidate.spec
    notes: tuple[str, ...] = (f"quantized engine: {engine}",)
    # `prepare_fx` fuses by itself in the same way, but does not check.
    fused = fuse(candidate.model, calibration[0][:1])
    if spec.activations == "dynamic":
        return Lowered(_quantize_linear(fused, spec), (*notes, *_explain_reduced_range(engine)))
    bits, reason = activation_bits(engine)
    mapping = static_mapping(spec, engine, bits)
    with fusion.explain(*fusion.TRACING):
        prepared = quantize_fx.prepare_fx(
            copy.deepcopy(candidate.model).eval(), mapping, (torch.from_numpy(calibration[0]),)
        )
    if spec.activation_ranges:
        set_activation_ranges(prepared, spec.activation_ranges)
    else:
        with torch.inference_mode():
            for batch in calibration:
                prepared(torch.from_numpy(batch))
    with fusion.explain("PyTorch cannot convert a layer to INT8", "write the layer otherwise"):
        converted = quantize_fx.convert_fx(prepared)
    if not spec.activation_ranges:
        # Training has rounded there with a range of its own, so what was trained does.
        flatten_quantized(converted)
    return Lowered(converted, notes + ((reason,) if reason else ()))


def _explain_reduced_range(engine: str) -> tuple[str, ...]:
    # torch.ao.nn.quantized.dynamic.Linear passes reduce_range=True, which only QNNPACK ignores.
    if engine == "qnnpack":
        return ()
    return ("dynamic activations have 7 bits: PyTorch's dynamic linear layer asks for no more, on any CPU",)


def _quantize_linear(graph: torch.fx.GraphModule, spec: QuantSpec) -> torch.fx.GraphModule:
    qconfig = (
        quantization.per_channel_dynamic_qconfig
        if spec.granularity == "per_channel"
        else quantization.default_dynamic_qconfig
    )
    # By name, because a Linear fused with its ReLU is of another type.
    layers = {
        name: qconfig
        for name, module in graph.named_modules()
        if isinstance(module, nn.Linear | nni.LinearReLU)
        # The projection inside nn.MultiheadAttention, whose weight is read and not called.
        and not isinstance(module, NonDynamicallyQuantizableLinear)
        and name not in spec.float_layers
    }
    quantized: torch.fx.GraphModule = quantization.quantize_dynamic(graph, layers)
    return quantized


def static_mapping(spec: QuantSpec, engine: str, bits: int) -> quantization.QConfigMapping:
    """INT8 for every operator the engine has, with the spec's observers and granularity.

    PyTorch's default mapping is the base, for the operators whose output range is fixed (sigmoid,
    softmax) or whose weights need another layout; its 7-bit default for `x86` is replaced.
    """
    reduce_range = bits == REDUCED_ACTIVATION_BITS
    observer = {
        "histogram": quantization.HistogramObserver,
        "minmax": quantization.MinMaxObserver,
    }[spec.observer]
    weight = {
        "per_channel": quantization.default_per_channel_weight_observer,
        "per_tensor": quantization.default_weight_observer,
    }[spec.granularity]
    activation = functools.partial(
        observer, dtype=torch.quint8, qscheme=torch.per_tensor_affine, reduce_range=reduce_range
    )
    mapping = quantization.get_default_qconfig_mapping(engine)
    default = mapping.global_qconfig
    for kind, qconfig in mapping.object_type_qconfigs.items():
        if default and qconfig and qconfig.activation is default.activation:
            mapping.set_object_type(kind, quantization.QConfig(activation, qconfig.weight))
    mapping.set_global(quantization.QConfig(activation=activation, weight=weight))
    for layer in spec.float_layers:
        mapping.set_module_name(layer, None)
    return mapping


def set_activation_ranges(prepared: torch.fx.GraphModule, ranges: Sequence[ActivationRange]) -> None:
    """Give each observer of a prepared graph the range learned in training, instead of calibrating.

    Raises UnsupportedError naming an observed layer that has no range.
    """
    known = {item.layer: item for item in ranges}
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        observer = prepared.get_submodule(node.target)
        if not isinstance(observer, quantization.ObserverBase) or isinstance(
            observer, quantization.FixedQParamsObserver
        ):
            continue
        layer = str(node.args[0].name)
        if layer not in known:
            raise UnsupportedError(f"no activation range was learned for {layer!r}")
        fixed = quantization.MinMaxObserver(
            dtype=observer.dtype, qscheme=torch.per_tensor_affine, reduce_range=observer.reduce_range
        )
        fixed.min_val.fill_(known[layer].low)
        fixed.max_val.fill_(known[layer].high)
        prepared.set_submodule(node.target, fixed)


def flatten_quantized(converted: torch.fx.GraphModule) -> None:
    """Let `nn.Flatten` move INT8 values, as PyTorch does for `torch.flatten`, in place.

    PyTorch dequantizes before the module and quantizes after it: two operations and a rounding.
    """
    graph = converted.graph
    for node in list(graph.nodes):
        if node.op != "call_module" or type(converted.get_submodule(node.target)) is not nn.Flatten:
            continue
        dequantize = node.args[0]
        if dequantize.target != "dequantize" or any(
            user.target is not torch.quantize_per_tensor for user in node.users
        ):
            continue
        node.replace_input_with(dequantize, dequantize.args[0])
        for quantize in list(node.users):
            quantize.replace_all_uses_with(node)
            graph.erase_node(quantize)
    graph.eliminate_dead_code()
    read = {node.target for node in graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in converted.named_buffers(recurse=False) if name not in read]:
        delattr(converted, name)
    converted.recompile()


@functools.cache
def activation_bits(engine: str) -> tuple[int, str | None]:
    """Return how many bits activations can have in `engine` on this CPU, and why if not 8.

    Kernels without VNNI add pairs of 8-bit products in 16 bits, which overflows
    (FBGEMM, "vpmaddubsw saturation"). Found by running convolutions (dense, depthwise) and a
    linear layer on the largest values and comparing with the exact result.
    """
    with quantized_engine(engine):
        saturated = [
            name
            for name, output in (
                ("dense convolution", _extreme_convolution(64, 64, 1)),
                ("depthwise convolution", _extreme_convolution(128, 128, 128)),
                ("linear", _extreme_linear()),
            )
            if abs(output - _EXPECTED) > 1.0
        ]
    if not saturated:
        return FULL_ACTIVATION_BITS, None
    return REDUCED_ACTIVATION_BITS, (
        f"activations have 7 bits: on this CPU engine {engine} overflows with 8 bits ({', '.join(saturated)})"
    )


_EXPECTED = 200.0
_LARGEST_ACTIVATION, _LARGEST_WEIGHT = 255.0, 127.0


def _extreme_convolution(inputs: int, outputs: int, groups: int) -> float:
    weight = torch.full((outputs, inputs // groups, 3, 3), _LARGEST_WEIGHT)
    packed = torch.ops.quantized.conv2d_prepack(
        torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8), None, [1, 1], [0, 0], [1, 1], groups
    )
    scale = weight[0].numel() * _LARGEST_ACTIVATION * _LARGEST_WEIGHT / _EXPECTED
    image = torch.full((1, inputs, 8, 8), _LARGEST_ACTIVATION)
    quantized = torch.quantize_per_tensor(image, 1.0, 0, torch.quint8)
    return float(torch.ops.quantized.conv2d.new(quantized, packed, scale, 0).dequantize().min()) / scale


def _extreme_linear() -> float:
    weight = torch.full((16, 128), _LARGEST_WEIGHT)
    packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8), None)
    scale = 128 * _LARGEST_ACTIVATION * _LARGEST_WEIGHT / _EXPECTED
    rows = torch.quantize_per_tensor(torch.full((4, 128), _LARGEST_ACTIVATION), 1.0, 0, torch.quint8)
    return float(torch.ops.quantized.linear(rows, packed, scale, 0).dequantize().min()) / scale
