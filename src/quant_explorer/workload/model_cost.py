"""All that is found out of a float model without timing it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quant_explorer.core.cost.counts import ModelCost
from quant_explorer.core.errors import UnsupportedError, explain
from quant_explorer.workload.layers import count_layers
from quant_explorer.workload.liveness import find_peak
from quant_explorer.workload.onnx_layers import count_onnx_layers, count_onnx_parameters

if TYPE_CHECKING:
    from torch import nn


def analyze_model(model: nn.Module, input_shape: tuple[int, ...]) -> ModelCost:
    """Return layers and peak of live activations for one image (channels, height, width).

    Where the model cannot be traced the peak is None, with the reason. The model is not touched.
    """
    from quant_explorer.tracing.onnx_program import OnnxProgram

    if isinstance(model, OnnxProgram):
        return ModelCost(
            input_shape=tuple(input_shape),
            layers=count_onnx_layers(model, input_shape),
            peak_reason="an ONNX file has no PyTorch module to trace",
        )
    cost = ModelCost(input_shape=tuple(input_shape), layers=count_layers(model, input_shape))
    try:
        peak = find_peak(model, input_shape)
    except UnsupportedError as error:
        return replace(cost, peak_reason=explain(error))
    return replace(cost, peak_activation_elements=peak.elements, peak_node=peak.node)


def count_parameters(model: nn.Module) -> int:
    """Return how many floating-point weights the whole model has."""
    from quant_explorer.tracing.onnx_program import OnnxProgram

    if isinstance(model, OnnxProgram):
        return count_onnx_parameters(model)
    return sum(parameter.numel() for parameter in model.parameters())
