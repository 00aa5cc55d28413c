"""Whether the INT8 kernels of OpenVINO's CPU plugin overflow on this CPU.

Source: NNCF, `OverflowFix` (`nncf/quantization/advanced_parameters.py`), which halves the range of weights.
"""

from __future__ import annotations

import functools

import numpy as np
import openvino
from openvino import opset13 as operations

from quant_explorer.core.quantspec import Target
from quant_explorer.runtimes.saturation import FOR_ANY_CPU

_LARGEST_ACTIVATION, _LARGEST_WEIGHT = 255.0, 127.0


def explain_reduced_range(target: Target) -> str | None:
    """Return why weights have 7 bits for this target, or None where they have 8."""
    if target == "portable":
        return f"weights have 7 bits, {FOR_ANY_CPU}; products of two activations stay in float"
    if saturates():
        return (
            "weights have 7 bits and products of two activations stay in float: on this CPU OpenVINO's "
            "kernels overflow with 8 bits (no VNNI instructions)"
        )
    return None


@functools.cache
def saturates() -> bool:
    """Say whether products of unsigned and signed 8-bit numbers overflow on this CPU.

    Kernels without VNNI add pairs of them in 16 bits. Found by running a linear layer and a convolution on
    the largest values there are.
    """
    images, rows = (1, 64, 8, 8), (4, 128)
    return _overflows(_linear(rows), rows, rows[1]) or _overflows(_convolution(images), images, 64 * 9)


def _overflows(model: openvino.Model, shape: tuple[int, ...], summands: int) -> bool:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (output,) = compiled(np.full(shape, _LARGEST_ACTIVATION, np.float32)).values()
    exact = summands * _LARGEST_ACTIVATION * _LARGEST_WEIGHT
    return not np.abs(output - exact).max() <= exact / _LARGEST_ACTIVATION


def _linear(shape: tuple[int, int]) -> openvino.Model:
    rows, activations = _input(shape)
    product = operations.matmul(activations, _weights((16, shape[1])), False, True)
    return openvino.Model([operations.result(product)], [rows])


def _convolution(shape: tuple[int, int, int, int]) -> openvino.Model:
    images, activations = _input(shape)
    filters = _weights((shape[1], shape[1], 3, 3))
    maps = operations.convolution(activations, filters, [1, 1], [0, 0], [0, 0], [1, 1])
    return openvino.Model([operations.result(maps)], [images])


def _input(shape: tuple[int, ...]) -> tuple[openvino.Node, openvino.Node]:
    parameter = operations.parameter(shape, np.float32)
    return parameter, _quantized(parameter, 0.0, _LARGEST_ACTIVATION, levels=256)


def _weights(shape: tuple[int, ...]) -> openvino.Node:
    weights = operations.constant(np.full(shape, _LARGEST_WEIGHT, np.float32))
    return _quantized(weights, -_LARGEST_WEIGHT, _LARGEST_WEIGHT, levels=255)


def _quantized(values: openvino.Node, low: float, high: float, *, levels: int) -> openvino.Node:
    lower, upper = (operations.constant(np.float32(bound)) for bound in (low, high))
    return operations.fake_quantize(values, lower, upper, lower, upper, levels)
