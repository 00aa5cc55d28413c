"""Whether the INT8 kernels that Inductor's code calls (oneDNN's, in PyTorch) overflow on this CPU.

Source: torchao, "PyTorch 2 Export Quantization with X86 Backend through Inductor", on `reduce_range`.
"""

from __future__ import annotations

import functools

import torch

from quant_explorer.core.host.architecture import is_x86
from quant_explorer.core.quantspec import Target
from quant_explorer.runtimes.saturation import FOR_ANY_CPU

_LARGEST_ACTIVATION, _LARGEST_WEIGHT = 255, 127


def explain_reduced_range(target: Target) -> str | None:
    """Return why activations have 7 bits for this target, or None where they have 8."""
    if target == "portable":
        return f"activations have 7 bits, {FOR_ANY_CPU}"
    if saturates():
        return "activations have 7 bits: on this CPU oneDNN's kernels overflow with 8 (no VNNI instructions)"
    return None


@functools.cache
def saturates() -> bool:
    """Say whether products of unsigned and signed 8-bit numbers overflow on this CPU.

    Kernels without VNNI add pairs of them in 16 bits. Found by running a linear layer, a convolution and a
    depthwise one on the largest values there are, whose sums are whole numbers that float32 holds.
    """
    return is_x86() and (_convolution(64, groups=1) or _convolution(128, groups=128) or _linear(128))


def _convolution(channels: int, *, groups: int) -> bool:
    images = torch.full((1, channels, 8, 8), _LARGEST_ACTIVATION, dtype=torch.uint8)
    weight = torch.full((channels, channels // groups, 3, 3), _LARGEST_WEIGHT, dtype=torch.int8)
    scales = torch.ones(channels)
    geometry = ([1, 1], [0, 0], [1, 1], groups)
    packed = torch.ops.onednn.qconv_prepack(weight, scales, 1.0, 0, *geometry, None)
    sums = torch.ops.onednn.qconv_pointwise(
        images, 1.0, 0, packed, scales, torch.zeros(channels), None, *geometry, *_FLOAT_OUTPUT
    )
    return _differs(sums, weight[0].numel())


def _linear(features: int) -> bool:
    rows = torch.full((4, features), _LARGEST_ACTIVATION, dtype=torch.uint8)
    weight = torch.full((16, features), _LARGEST_WEIGHT, dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    zero_points = torch.zeros(16, dtype=torch.int)
    sums = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, 0, packed, torch.ones(16), zero_points, None, *_FLOAT_OUTPUT
    )
    return _differs(sums, features)


# Scale and zero point of the output, its type, and no function after it.
_FLOAT_OUTPUT = (1.0, 0, torch.float32, "none", [None], "")


def _differs(sums: torch.Tensor, summands: int) -> bool:
    return bool((sums != summands * _LARGEST_ACTIVATION * _LARGEST_WEIGHT).any())
