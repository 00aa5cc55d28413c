"""What a model costs before any machine is chosen: per layer work and traffic, in counts and not in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from quant_explorer.core.quantspec import Precision

BYTES_PER_ELEMENT: Final[dict[Precision, int]] = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class LayerCost:
    """One layer of the float model and one image; a layer called `calls` times is the sum of its calls.

    `name` is the qualified name in the model ("" for what the model computes outside of its layers), `kind`
    the class. `input_shape` and `output_shape` are of the first call's first tensor, with the batch of 1.
    `macs` are multiply-accumulates, bias additions not counted. `parameters` are those of the layer itself,
    `input_elements` and `output_elements` those of all tensors that go in and come out.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    parameters: int
    input_elements: int
    output_elements: int
    calls: int = 1


@dataclass(frozen=True)
class ModelCost:
    """All layers of a float model in the order they are first called, and its peak of live activations.

    `peak_activation_elements` is the largest number of activation elements of one image that are needed at
    once, `peak_node` the step of the traced graph that has it; None, with `peak_reason`, for a model
    that cannot be traced. `input_shape` is of one image, (channels, height, width).
    """

    input_shape: tuple[int, ...]
    layers: tuple[LayerCost, ...]
    peak_activation_elements: int | None = None
    peak_node: str | None = None
    peak_reason: str | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers)


def weight_bytes(layer: LayerCost, precision: Precision) -> int:
    """Return what the layer's parameters take when all of them are stored in `precision`."""
    return layer.parameters * BYTES_PER_ELEMENT[precision]


def activation_bytes(layer: LayerCost, precision: Precision, batch_size: int = 1) -> int:
    """Return what the layer reads and writes beside its weights, for a batch in `precision`."""
    return (layer.input_elements + layer.output_elements) * BYTES_PER_ELEMENT[precision] * batch_size


def moved_bytes(layer: LayerCost, precision: Precision, batch_size: int = 1) -> int:
    """Return the least a layer moves for a batch: each call reads weights and inputs and writes outputs.

    This takes a cache that holds nothing from one layer to the next and loses nothing within a layer.
    """
    weights = weight_bytes(layer, precision) * layer.calls
    return weights + activation_bytes(layer, precision, batch_size)


def model_moved_bytes(layers: Iterable[LayerCost], precision: Precision, batch_size: int = 1) -> int:
    """Return the bytes that the layers which multiply move for a batch.

    What does not multiply (batch norm, activation, pooling, addition) counts nothing, as if it were fused
    into its neighbour. Runtimes fuse most of it, so this is a lower bound.
    """
    return sum(moved_bytes(layer, precision, batch_size) for layer in layers if layer.macs)


def arithmetic_intensity(macs: float, bytes_moved: float) -> float:
    """Return multiply-accumulates per byte moved; infinite for work that moves nothing, 0 for no work."""
    if not macs:
        return 0.0
    return macs / bytes_moved if bytes_moved else inf


def peak_activation_bytes(cost: ModelCost, precision: Precision) -> int | None:
    """Return the peak of live activations of one image in `precision`, or None for an untraceable model."""
    if cost.peak_activation_elements is None:
        return None
    return cost.peak_activation_elements * BYTES_PER_ELEMENT[precision]
