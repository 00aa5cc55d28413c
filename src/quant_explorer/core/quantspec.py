"""QuantSpec: which precision a technique asks a runtime for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Precision = Literal["fp32", "bf16", "fp16", "int8"]
Activations = Literal["float", "static", "dynamic"]
Granularity = Literal["per_tensor", "per_channel"]
Observer = Literal["histogram", "minmax"]
Target = Literal["native", "portable"]
# One scale for a weight, one for each of its output channels, or none: it stays in float.
Scales = Literal["tensor", "channel", "float"]

# A constant beyond it that is added to scores, or put in their place, is a mask of attention: a softmax makes
# 0 of it, and one INT8 scale for mask and scores would make one value of all scores.
MASKED: Final = 1e4


@dataclass(frozen=True)
class Grid:
    """How fine INT8 is: symmetric weights have scale max|w| / `weight_levels`, activations range / levels.

    127.5 levels are the weights -128 to 127 with PyTorch's scale; fewer levels are a reduced range.
    `transposed` and `transposed_groups` say how fine the weights of transposed convolutions are, of one group
    and of several, where the spec asks for a scale per channel; "float" holds for any granularity.
    `shares_pools` says that average pools may be left on the grid of their input.
    """

    weight_levels: float = 127.5
    activation_levels: int = 255
    transposed: Scales = "channel"
    transposed_groups: Scales = "channel"
    shares_pools: bool = True


FULL_RANGE: Final = Grid()


@dataclass(frozen=True)
class ActivationRange:
    """The range one activation was fake-quantized with during quantization-aware training.

    `layer` is the name that torch.fx gives, in the traced float model, to the (last fused) call whose
    output it is: the qualified name with underscores, numbered where a layer is called again. `low`
    and `high` are in the units of the activation and include 0.
    """

    layer: str
    low: float
    high: float


@dataclass(frozen=True)
class QuantSpec:
    """What a runtime is asked to lower a float model to.

    `activations` is "static" (ranges fixed before deployment), "dynamic" (ranges taken at run time)
    or "float" (not quantized). `granularity` is that of the weights; activations have one scale
    a tensor. `float_layers` are qualified names that stay in floating point. `activation_ranges`
    are those learned in training; where there are none, a static runtime calibrates. `target` "native" is
    this CPU; with "portable" the ranges of INT8 are those that no x86-64 CPU overflows with.
    """

    precision: Precision = "fp32"
    activations: Activations = "float"
    granularity: Granularity = "per_channel"
    observer: Observer = "histogram"
    float_layers: tuple[str, ...] = ()
    activation_ranges: tuple[ActivationRange, ...] = ()
    target: Target = "native"


def is_inside(scope: str, modules: Sequence[str]) -> bool:
    """Whether the qualified name `scope` is that of one of `modules`, or of a part of it."""
    return any(scope == name or scope.startswith(f"{name}.") for name in modules)
