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


def explain_transposed(spec: QuantSpec, engine: str) -> str | None:
    """Return why transposed convolutions are not quantized for the target of `spec`, or None."""
    if spec.target == "portable" and engine in ("x86", "fbgemm"):
        return "CPUs without VNNI use FBGEMM, which packs the weights of transposed convolutions wrongly"
    if packs_transposed(engine):
        return None
    return f"engine {engine} packs the weights of transposed convolutions wrongly on this CPU"


@functools.cache
def packs_transposed(engine: str) -> bool:
    """Say whether the weights of a transposed convolution are the same when they are unpacked again.

    FBGEMM's, to which engine `x86` falls back without VNNI, are others for some sizes of the kernel, and so
    are its results (seen in PyTorch 2.14).
    """
    values = torch.arange(256).sub(128).reshape(8, 8, 2, 2).float()
    weight = torch.quantize_per_tensor(values, 1.0, 0, torch.qint8)
    with quantized_engine(engine):
        packed = torch.ops.quantized.conv_transpose2d_prepack(weight, None, [2, 2], [0, 0], [0, 0], [1, 1], 1)
        unpacked, _ = torch.ops.quantized.conv_transpose2d_unpack(packed)
    return torch.equal(weight.int_repr(), unpacked.int_repr())


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
