"""Which values of an exported graph training rounds to 8 bits, for no runtime in particular.

The inputs and outputs of convolutions, linear layers, additions, products and concatenations have 8 bits,
affine; weights have 8 bits, symmetric. A batch norm and a ReLU behind such an operator belong to it.
Source: torchao, "How to Write a Quantizer for PyTorch 2 Export Quantization",
https://docs.pytorch.org/ao/stable/tutorials_source/pt2e_quantizer.html.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import fx
from torchao.quantization.pt2e import (
    FakeQuantize,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from quant_explorer.core.quantspec import QuantSpec

_aten = torch.ops.aten
_WEIGHTED = {
    *(_aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.linear.default),
    *(_aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding),
}
TRANSPOSED = {_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input}
_COMBINING = {
    *(_aten.add.Tensor, _aten.add_.Tensor, _aten.mul.Tensor, _aten.mul_.Tensor),
    *(_aten.cat.default, _aten.matmul.default, _aten.bmm.default),
}
BATCH_NORM = _aten.batch_norm.default
_CLAMPING = {
    *(_aten.relu.default, _aten.relu_.default, _aten.hardtanh.default, _aten.hardtanh_.default),
    *(_aten.clamp.default, _aten.clamp_.default),
}
# Operators that pass 8-bit values on as they are.
_MOVING = {
    *(_aten.max_pool1d.default, _aten.max_pool2d.default, _aten.max_pool3d.default),
    *(_aten.flatten.using_ints, _aten.reshape.default, _aten.view.default, _aten.permute.default),
    *(_aten.dropout.default, _aten.dropout_.default),
}


class NeutralQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates what INT8 runtimes have in common, with the spec's granularity and observer."""

    def __init__(self, spec: QuantSpec) -> None:
        observer = {"histogram": HistogramObserver, "minmax": MinMaxObserver}[spec.observer]
        self._activation = _fake_quantization(torch.uint8, 0, 255, torch.per_tensor_affine, observer=observer)
        # The range of the weights as they are now, which is what conversion will use.
        signed = partial(_fake_quantization, torch.int8, -128, 127, averaging_constant=1.0)
        self._tensor = signed(torch.per_tensor_symmetric, observer=MovingAverageMinMaxObserver)
        self._weight = (
            signed(torch.per_channel_symmetric, observer=MovingAveragePerChannelMinMaxObserver, ch_axis=0)
            if spec.granularity == "per_channel"
            else self._tensor
        )
        self._float_layers = set(spec.float_layers)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Ask for fake quantization of what the operators above take and give."""
        for node in model.graph.nodes:
            if self._is_in_float(node):
                continue
            if node.target in _WEIGHTED | TRANSPOSED:
                # Output channels are the second dimension of transposed weights.
                weight = self._tensor if node.target in TRANSPOSED else self._weight
                self._annotate(node, {node.args[0]: self._input(node.args[0]), node.args[1]: weight})
            elif node.target in _COMBINING:
                inputs = [source for source in node.all_input_nodes if _is_float(source)]
                self._annotate(node, {source: self._input(source) for source in inputs})
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Any annotated graph can be trained."""

    def _input(self, source: fx.Node) -> QuantizationSpec | None:
        """Return how an input is quantized, None for values that have been already."""
        if source.target not in _MOVING:
            return self._activation
        while source.target in _MOVING:
            source = source.all_input_nodes[0]
        annotation = source.meta.get("quantization_annotation")
        return None if annotation and annotation.output_qspec else self._activation

    def _annotate(self, node: fx.Node, inputs: dict[fx.Node, QuantizationSpec | None]) -> None:
        last = _last_fused(node)
        for annotated in (node, last):
            annotation = QuantizationAnnotation(
                input_qspec_map=inputs if annotated is node else {},
                output_qspec=self._activation if annotated is last else None,
                _annotated=True,
            )
            annotated.meta["quantization_annotation"] = annotation

    def _is_in_float(self, node: fx.Node) -> bool:
        modules = {str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()}
        return not modules.isdisjoint(self._float_layers)


def _fake_quantization(
    dtype: torch.dtype, low: int, high: int, qscheme: torch.qscheme, **settings: object
) -> QuantizationSpec:
    settings |= {"dtype": dtype, "quant_min": low, "quant_max": high, "qscheme": qscheme}
    quantization = FakeQuantize.with_args(**settings)
    axis = settings.get("ch_axis")
    return QuantizationSpec(dtype, quantization, low, high, qscheme, axis)


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _last_fused(node: fx.Node) -> fx.Node:
    """Return the batch norm and ReLU behind `node` that runtimes join with it, or `node` itself."""
    for followers in ({BATCH_NORM}, _CLAMPING):
        users = list(node.users)
        if len(users) == 1 and users[0].target in followers:
            node = users[0]
    return node
