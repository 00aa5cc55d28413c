"""Fake quantization through PyTorch's FX graph mode, where this PyTorch still has it.

Source: PyTorch, `prepare_qat_fx`, https://docs.pytorch.org/docs/2.9/quantization.html.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import fx, nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.nn import functional as F

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError, UnsupportedError
from quant_explorer.core.quantspec import ActivationRange, QuantSpec
from quant_explorer.techniques.qat import FakeQuantized
from quant_explorer.tracing.functional_layers import KINDS
from quant_explorer.tracing.left_in_float import leave_in_float
from quant_explorer.tracing.normal_form import check, normalize
from quant_explorer.tracing.observers.clipping import narrow_observers
from quant_explorer.tracing.observers.sharing import separate_observers
from quant_explorer.tracing.reasons import QUANTIZE_ADVICE, explain_refusal
from quant_explorer.tracing.training_only import find_skipped, make_dropout_modules

_NORMS = (F.batch_norm, F.instance_norm)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def prepare(model: nn.Module, spec: QuantSpec, calibration: Sequence[Batch]) -> FakeQuantized:
    """Return a copy of `model` with fake quantization, its activation ranges observed and held.

    Raises UnsupportedError when the model cannot be traced, has a layer that FX cannot fuse for training, or
    weights that FX takes for activations.
    """
    skipped = find_skipped(model, calibration[0])
    graph = normalize(model, calibration[0], trainable=True, whole=skipped)
    norms = [node.name for node in graph.module.graph.nodes if node.target in _NORMS]
    if norms:
        raise UnsupportedError(
            "PyTorch's FX graph mode trains no norm that forward() calls as a function with "
            f"training=self.training: {', '.join(norms)}"
        )
    computed = [node.name for node in graph.module.graph.nodes if node.target in KINDS]
    if computed:
        raise UnsupportedError(
            f"PyTorch's FX graph mode trains no layer whose weights forward() computes: {', '.join(computed)}"
        )
    _require_fusible(graph.module)
    mapping = qat_mapping(spec)
    leave_in_float(mapping, graph, spec.float_layers)
    failed = "FX graph mode cannot prepare the model for training"
    with explain_refusal(failed, QUANTIZE_ADVICE, LookupError):
        # Dropout and norms are modules, which switch; the rest of the graph is that of evaluation mode.
        prepared = quantize_fx.prepare_qat_fx(
            graph.module.train(),
            mapping,
            (torch.from_numpy(calibration[0]),),
            PrepareCustomConfig().set_non_traceable_module_classes(list(skipped)),
        )
        # Now, because layers have the names of the graph that is shipped.
        make_dropout_modules(prepared)
        separate_observers(prepared, mapping)
        narrow_observers(prepared)
        _check(prepared, model, calibration[0])
        observe_activations(prepared, calibration)
    return FakeQuantized(
        prepared,
        restore=partial(restore_float, prepared, calibration[0]),
        note="fine-tuned with the fake quantization of PyTorch's FX graph mode",
        activation_ranges=tuple(activation_ranges(prepared)),
    )


def _check(prepared: fx.GraphModule, model: nn.Module, example: Batch) -> None:
    """Raise UnsupportedError when a prepared graph does not compute what `model` does."""
    prepared.eval()
    prepared.apply(quantization.disable_fake_quant)
    prepared.apply(quantization.disable_observer)
    check(prepared, model, example)


def qat_mapping(spec: QuantSpec) -> quantization.QConfigMapping:
    """Fake quantization with the spec's granularity and observer, 8 bits."""
    observer = {
        "histogram": quantization.HistogramObserver,
        "minmax": quantization.MinMaxObserver,
    }[spec.observer]
    activation = quantization.FakeQuantize.with_args(
        observer=observer,
        quant_min=0,
        quant_max=255,
        dtype=torch.quint8,
        qscheme=torch.per_tensor_affine,
        reduce_range=False,
    )
    per_channel = spec.granularity == "per_channel"
    weight = quantization.FakeQuantize.with_args(
        observer=quantization.MovingAveragePerChannelMinMaxObserver
        if per_channel
        else quantization.MovingAverageMinMaxObserver,
        # The range of the weights as they are now, which is what conversion will use.
        averaging_constant=1.0,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        **({"ch_axis": 0} if per_channel else {}),
    )
    mapping = quantization.get_default_qat_qconfig_mapping("qnnpack")
    default = mapping.global_qconfig
    for kind, qconfig in mapping.object_type_qconfigs.items():
        if default and qconfig and qconfig.activation is default.activation:
            mapping.set_object_type(kind, quantization.QConfig(activation, qconfig.weight))
    mapping.set_global(quantization.QConfig(activation=activation, weight=weight))
    return mapping


def observe_activations(prepared: fx.GraphModule, calibration: Sequence[Batch]) -> None:
    """Set every activation's range from the calibration images, then hold it while weights train."""
    prepared.eval()
    prepared.apply(quantization.disable_fake_quant)
    prepared.apply(quantization.enable_observer)
    with torch.no_grad():
        for batch in calibration:
            prepared(torch.from_numpy(batch))
    prepared.apply(quantization.enable_fake_quant)
    for _, fake_quantize in _activation_quantizers(prepared):
        fake_quantize.disable_observer()
    prepared.train()


def activation_ranges(prepared: fx.GraphModule) -> Iterator[ActivationRange]:
    """Yield the held range of every observed layer, by the float model's name of it."""
    for layer, fake_quantize in _activation_quantizers(prepared):
        scale, zero_point = float(fake_quantize.scale), int(fake_quantize.zero_point)
        yield ActivationRange(
            layer,
            low=(fake_quantize.quant_min - zero_point) * scale,
            high=(fake_quantize.quant_max - zero_point) * scale,
        )


def restore_float(prepared: fx.GraphModule, example: Batch, model: nn.Module) -> nn.Module:
    """Return a copy of `model` with the weights and batch norms that were trained inside `prepared`.

    What `forward` does not use stays as it was; `example` are images (n, C, H, W). Raises BuildError naming a
    parameter of the model that training lost.
    """
    trained = prepared.state_dict()
    graph = normalize(model, example, trainable=True)
    before = {norm: layer for layer, norm in _batch_norms(graph.module)}
    restored: dict[str, torch.Tensor] = {}
    # Without buffers that are constants of the code, which no checkpoint keeps.
    kept = model.state_dict().keys()
    # The graph's names, for a module may have several and others are never called.
    for name, known in graph.tensors.items():
        if known not in kept:
            continue
        layer, _, parameter = name.rpartition(".")
        fused = before.get(layer, layer)
        # As it was; inside a quantized layer; or first or second of a fused sequence that stays in float.
        sources = (name, f"{fused}.bn.{parameter}", f"{layer}.0.{parameter}", f"{fused}.1.{parameter}")
        source = next((source for source in sources if source in trained), None)
        if source is None:
            raise BuildError(f"quantization-aware training lost the parameter {known!r} of the model")
        restored[known] = trained[source]
    result = copy.deepcopy(model)
    result.load_state_dict(restored, strict=False)
    return result


def _require_fusible(graph: fx.GraphModule) -> None:
    # PyTorch ends with a bare Exception on these.
    for layer, norm in _batch_norms(graph):
        if isinstance(graph.get_submodule(layer), _TRANSPOSED):
            raise UnsupportedError(
                f"FX graph mode cannot train the transposed convolution {layer!r} with the batch norm "
                f"{norm!r} behind it"
            )


def _activation_quantizers(
    prepared: fx.GraphModule,
) -> Iterator[tuple[str, quantization.FakeQuantize]]:
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        module = prepared.get_submodule(node.target)
        if isinstance(module, quantization.FakeQuantize) and not isinstance(
            module, quantization.FixedQParamsFakeQuantize
        ):
            yield str(node.args[0].name), module


def _batch_norms(graph: fx.GraphModule) -> Iterator[tuple[str, str]]:
    for node in graph.graph.nodes:
        if node.op == "call_module" and isinstance(
            graph.get_submodule(node.target), nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
        ):
            producer = node.args[0]
            if producer.op == "call_module":
                yield str(producer.target), str(node.target)
