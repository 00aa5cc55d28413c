"""FX graph mode quantization: the INT8 of `eager` and `torchscript`.

PyTorch has announced that it will remove `torch.ao.quantization`; this module is for where it is there.
Source: PyTorch, `torch.ao.quantization.quantize_fx`,
https://docs.pytorch.org/docs/2.9/quantization-support.html.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from torch.ao import quantization
from torch.ao.nn import intrinsic as nni
from torch.ao.quantization import quantize_fx
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import ActivationRange, Grid, QuantSpec, Scales
from quant_explorer.runtimes.eager.lowering import LoweredGraph
from quant_explorer.runtimes.torch_graph.engine import (
    FULL_ACTIVATION_BITS,
    REDUCED_ACTIVATION_BITS,
    choose_bits,
    explain_transposed,
    needed_features,
)
from quant_explorer.tracing.left_in_float import leave_in_float, unknown_to_fx
from quant_explorer.tracing.normal_form import FloatGraph, check, normalize
from quant_explorer.tracing.observers.clipping import narrow_observers
from quant_explorer.tracing.observers.sharing import requantize_joined, separate_observers
from quant_explorer.tracing.reasons import in_brackets

_log = logging.getLogger(__name__)
_TRANSPOSED_LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED_CALLS = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def fuse(graph: FloatGraph, model: nn.Module, example: Batch) -> torch.fx.GraphModule:
    """Fold batch norms into convolutions and join ReLUs, and check the result on `example` (n, C, H, W).

    Raises UnsupportedError when the fused graph computes something else than `model`.
    """
    with _explain("PyTorch cannot join the layers of the model"):
        fused: torch.fx.GraphModule = quantize_fx.fuse_fx(copy.deepcopy(graph.module))
    check(fused, model, example)
    return fused


def quantize(
    candidate: Candidate, calibration: Sequence[Batch], engine: str, *, copied_for: str | None = None
) -> LoweredGraph:
    """Lower a float model to INT8 modules of `engine`, dynamic or static as the spec asks.

    Copies of the modules are packed for the engine that is set when they are made, `copied_for` if it is
    another. Activations have a range that both compute exactly.

    Static ranges are those of the spec (learned in training) where it has them, otherwise observed on
    `calibration`. Raises UnsupportedError when the model cannot be traced.
    """
    spec = candidate.spec
    notes: tuple[str, ...] = (f"quantized engine: {engine}",)
    # `prepare_fx` fuses by itself in the same way, but does not check.
    # Ranges learned in training are of the operators there: what is trained is not computed ahead.
    graph = normalize(candidate.model, calibration[0], trainable=bool(spec.activation_ranges))
    fused = fuse(graph, candidate.model, calibration[0])
    if spec.activations == "dynamic":
        reduced = _explain_reduced_range(engine)
        bits = REDUCED_ACTIVATION_BITS if reduced else FULL_ACTIVATION_BITS
        return LoweredGraph(_quantize_linear(fused, graph, spec), (*notes, *reduced), grid=_grid(bits))
    bits, reason = choose_bits(spec, engine, copied_for or engine)
    mapping = static_mapping(spec, engine, bits)
    notes += (*((reason,) if reason else ()), *leave_in_float(mapping, graph, spec.float_layers))
    transposed = _transposed_convolutions(fused)
    # PyTorch has no observer of channels for them.
    scales: Scales = "tensor"
    if transposed and (reason := explain_transposed(spec, engine, copied_for or engine)):
        for kind in (*_TRANSPOSED_LAYERS, *_TRANSPOSED_CALLS):
            mapping.set_object_type(kind, None)
        notes += (f"{', '.join(transposed)} stay in float: {reason}",)
        scales = "float"
    with _explain("PyTorch cannot prepare a layer for INT8"):
        prepared = quantize_fx.prepare_fx(graph.module, mapping, (torch.from_numpy(calibration[0]),))
        separate_observers(prepared, mapping)
        if spec.activation_ranges:
            set_activation_ranges(prepared, spec.activation_ranges)
        requantize_joined(prepared)
        if not spec.activation_ranges:
            narrow_observers(prepared)
            with torch.inference_mode():
                for batch in calibration:
                    prepared(torch.from_numpy(batch))
    if bits == REDUCED_ACTIVATION_BITS:
        reduce_fixed_ranges(prepared)
    with _explain("PyTorch cannot convert a layer to INT8"):
        with unknown_to_fx(prepared):
            converted = quantize_fx.convert_fx(prepared)
        # Some operators only say when they run that they have no INT8 kernel.
        with torch.inference_mode():
            converted(torch.from_numpy(calibration[0][:1]))
    if not spec.activation_ranges:
        # Training has rounded there with a range of its own, so what was trained does.
        flatten_quantized(converted)
    grid = replace(_grid(bits), transposed=scales, transposed_groups=scales)
    return LoweredGraph(converted, notes, needed_features(engine, bits), grid)


@contextmanager
def _explain(what: str) -> Iterator[None]:
    """Turn what PyTorch raises for a graph that it cannot quantize into a sentence; its own is the cause."""
    try:
        yield
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        _log.info("%s: %s", what, error)
        raise UnsupportedError(
            f"{what}{in_brackets(error)}; keep it in float, or use another runtime for INT8"
        ) from error


def _grid(bits: int) -> Grid:
    return Grid(activation_levels=2**bits - 1)


def _transposed_convolutions(graph: torch.fx.GraphModule) -> list[str]:
    # By name, since a layer that is shared has several.
    return [
        str(node.target) if node.op == "call_module" else node.name
        for node in graph.graph.nodes
        if node.target in _TRANSPOSED_CALLS
        or (
            node.op == "call_module" and isinstance(graph.get_submodule(str(node.target)), _TRANSPOSED_LAYERS)
        )
    ]


def _explain_reduced_range(engine: str) -> tuple[str, ...]:
    # torch.ao.nn.quantized.dynamic.Linear passes reduce_range=True, which only QNNPACK ignores.
    if engine == "qnnpack":
        return ()
    return ("dynamic activations have 7 bits: PyTorch's dynamic linear layer asks for no more, on any CPU",)


def _quantize_linear(fused: torch.fx.GraphModule, graph: FloatGraph, spec: QuantSpec) -> torch.fx.GraphModule:
    qconfig = (
        quantization.per_channel_dynamic_qconfig
        if spec.granularity == "per_channel"
        else quantization.default_dynamic_qconfig
    )
    # By name, because a Linear fused with its ReLU is of another type.
    layers = {
        name: qconfig
        for name, module in fused.named_modules()
        if isinstance(module, nn.Linear | nni.LinearReLU)
        # The projection inside nn.MultiheadAttention, whose weight is read and not called.
        and not isinstance(module, NonDynamicallyQuantizableLinear)
        and graph.layers.get(name, name) not in spec.float_layers
    }
    quantized: torch.fx.GraphModule = quantization.quantize_dynamic(fused, layers)
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
    for kind in (*_TRANSPOSED_LAYERS, *_TRANSPOSED_CALLS):
        # PyTorch has no other for them; its mapping for `onednn` asks for one scale a channel all the same.
        mapping.set_object_type(kind, quantization.QConfig(activation, quantization.default_weight_observer))
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
        # Training has no layer of Linear, BatchNorm1d and ReLU, and rounds before the ReLU; the layer that
        # has all three takes 0 for the lowest value of its grid.
        low = 0.0 if _ends_with_relu(prepared, node.args[0]) else known[layer].low
        fixed.min_val.fill_(low)
        fixed.max_val.fill_(known[layer].high)
        prepared.set_submodule(node.target, fixed)


def _ends_with_relu(graph: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer[-1] if isinstance(layer, nn.Sequential) else layer, nn.ReLU)


def reduce_fixed_ranges(prepared: torch.fx.GraphModule) -> None:
    """Round outputs of a fixed range (sigmoid, softmax) to 7 bits where a layer with weights reads them.

    PyTorch's operators give them 8 bits on every CPU, with which the layer would overflow.
    """
    for node in list(prepared.graph.nodes):
        observer = prepared.get_submodule(node.target) if node.op == "call_module" else None
        if not isinstance(observer, quantization.FixedQParamsObserver):
            continue
        readers = [
            user
            for user in node.users
            if user.op == "call_module" and hasattr(prepared.get_submodule(user.target), "weight")
        ]
        if not readers:
            continue
        reduced = quantization.MinMaxObserver(
            dtype=observer.dtype, qscheme=torch.per_tensor_affine, reduce_range=True
        )
        zero_point, scale = float(observer.zero_point), float(observer.scale)
        reduced.min_val.fill_((observer.quant_min - zero_point) * scale)
        reduced.max_val.fill_((observer.quant_max - zero_point) * scale)
        name = f"{node.target}_reduced"
        prepared.add_submodule(name, reduced)
        with prepared.graph.inserting_after(node):
            rounded = prepared.graph.call_module(name, (node,))
        for reader in readers:
            reader.replace_input_with(node, rounded)
    prepared.recompile()


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
