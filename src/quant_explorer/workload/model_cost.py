"""All that is found out of a float model without timing it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quant_explorer.core.cost.counts import ModelCost
from quant_explorer.core.errors import UnsupportedError, explain
from quant_explorer.workload.layers import count_layers
from quant_explorer.workload.liveness import find_peak

if TYPE_CHECKING:
    from torch import nn


def analyze_model(model: nn.Module, input_shape: tuple[int, ...]) -> ModelCost:
    """Return layers and peak of live activations for one image (channels, height, width).

    Where the model cannot be traced the peak is None, with the reason. The model is not touched. Raises
    UnsupportedError for an ONNX file.
    """
    from quant_explorer.tracing.onnx_program import explain_no_module

    if reason := explain_no_module(model):
        raise UnsupportedError(f"layers and multiply-accumulates cannot be counted: {reason}")
    cost = ModelCost(input_shape=tuple(input_shape), layers=count_layers(model, input_shape))
    try:
        peak = find_peak(model, input_shape)
    except UnsupportedError as error:
        return replace(cost, peak_reason=explain(error))
    return replace(cost, peak_activation_elements=peak.elements, peak_node=peak.node)
