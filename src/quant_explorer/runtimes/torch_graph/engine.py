"""PyTorch's quantized engines: how one is used, and what its kernels compute exactly on this CPU.

Source: PyTorch, "Quantization backend configuration", https://docs.pytorch.org/docs/2.9/quantization.html.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes.saturation import FOR_ANY_CPU, exact_by

FULL_ACTIVATION_BITS = 8
REDUCED_ACTIVATION_BITS = 7
# It extends bytes to 16 bits before it multiplies, on every CPU.
_EXACT_ENGINE = "qnnpack"


@contextmanager
def quantized_engine(engine: str | None) -> Iterator[None]:
    """Make `engine` PyTorch's quantized engine inside the block: weights are packed for it.

    None leaves the engine as it is, and does not ask PyTorch for one.
    """
    if engine is None:
        yield
        return
    previous = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = previous


def choose_bits(spec: QuantSpec, *engines: str) -> tuple[int, str | None]:
    """Return how many bits static activations get for the target of `spec`, and why if not 8.

    `engines` are those that the weights may be packed for.
    """
    if spec.target == "portable" and set(engines) != {_EXACT_ENGINE}:
        return REDUCED_ACTIVATION_BITS, f"activations have 7 bits, {FOR_ANY_CPU}"
    return min((activation_bits(engine) for engine in engines), key=operator.itemgetter(0))


def explain_transposed(spec: QuantSpec, *engines: str) -> str | None:
    """Return why transposed convolutions are not quantized for the target of `spec`, or None.

    `engines` are those that the weights may be packed for.
    """
    if spec.target == "portable" and not {"x86", "fbgemm"}.isdisjoint(engines):
        return "CPUs without VNNI use FBGEMM, which computes transposed convolutions wrongly"
    wrong = [engine for engine in dict.fromkeys(engines) if not computes_transposed(engine)]
    return f"engine {wrong[0]} computes transposed convolutions wrongly on this CPU" if wrong else None


@functools.cache
def computes_transposed(engine: str) -> bool:
    """Say whether transposed convolutions in whole numbers are exact, with fewer and with more outputs.

    FBGEMM packs their weights wrongly for some sizes of kernels; oneDNN, which engine `x86` uses with VNNI,
    is wrong where the numbers of input and output channels differ (both seen in PyTorch 2.14).
    """
    with quantized_engine(engine):
        return all(_is_exact_transposed(*channels) for channels in ((8, 8), (16, 8), (8, 16)))


def _is_exact_transposed(inputs: int, outputs: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-5, 6, (inputs, outputs, 2, 2), generator=generator).float()
    images = torch.randint(0, 6, (1, inputs, 4, 4), generator=generator).float()
    packed = torch.ops.quantized.conv_transpose2d_prepack(
        torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8), None, [2, 2], [0, 0], [0, 0], [1, 1], 1
    )
    quantized = torch.quantize_per_tensor(images, 1.0, 0, torch.quint8)
    found = torch.ops.quantized.conv_transpose2d(quantized, packed, _TRANSPOSED_SCALE, 128).dequantize()
    exact = torch.nn.functional.conv_transpose2d(images, weight, stride=2)
    return bool((found - exact).abs().max() <= _TRANSPOSED_SCALE)


# Sums of 16 products of at most 25 are within 128 steps of it.
_TRANSPOSED_SCALE = 4.0


def needed_features(engine: str, bits: int = FULL_ACTIVATION_BITS) -> tuple[str, ...]:
    """Return the features of this CPU that `engine` needs to be exact with activations of `bits`.

    Empty where 8 bits overflow on this CPU, too: then nothing relies on them.
    """
    if engine == _EXACT_ENGINE or bits == REDUCED_ACTIVATION_BITS:
        return ()
    return exact_by(saturates=activation_bits(engine)[0] == REDUCED_ACTIVATION_BITS)


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
            if not abs(output - _EXPECTED) <= 1.0
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
