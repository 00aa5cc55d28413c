"""A model computed with operands that are rounded to their grids."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch._ops import OpOverload

from quant_explorer.core.errors import BuildError
from quant_explorer.core.quantspec import Grid, QuantSpec, Scales
from quant_explorer.pipeline.building.simulation.activation_range import Range
from quant_explorer.pipeline.building.simulation.following import (
    BATCH_NORMS,
    PRODUCTS,
    Following,
    Outputs,
    Value,
    operator_name,
)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class _Product:
    """A product that was computed with a rounded weight, its second factor, which was `raw` before.

    `raw` has its output channels along axis 0, `outputs` says where they belong.
    """

    func: OpOverload
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    output: object
    raw: torch.Tensor
    outputs: Outputs

    def compute(self, weight: torch.Tensor) -> object:
        """Compute it again with another weight, given as `raw` is."""
        position = PRODUCTS[operator_name(self.func)][1]
        weight = self.outputs.back(weight)
        return self.func(*self.args[:position], weight, *self.args[position + 1 :], **self.kwargs)


class Rounding(Following):
    """Rounds activations to `ranges`, or to that of the batch where they are dynamic, and weights."""

    def __init__(
        self,
        model: nn.Module,
        spec: QuantSpec,
        grid: Grid,
        ranges: Mapping[Value, Range],
        *sharing: str,
        unrounded: Collection[Value] = (),
    ) -> None:
        """Let operators `sharing` leave their output on the grid of their input; keep `unrounded` values."""
        super().__init__(model, spec)
        self.sharing = sharing
        self._grid, self._ranges, self._unrounded = grid, ranges, unrounded
        # The first operator that gave a number that is none, as a division by what was rounded to 0 does.
        self.overflowed: str | None = None
        # A weight that was rounded with one scale, until the product that reads it is computed.
        self._raw: tuple[torch.Tensor, Outputs] | None = None
        self._product: _Product | None = None

    def activation(self, tensor: torch.Tensor, value: Value) -> torch.Tensor:
        """Round it; raises BuildError for a value that has no range."""
        if self._spec.precision in _DTYPES:
            return tensor.to(_DTYPES[self._spec.precision]).float()
        if value.masked or value in self._unrounded:
            return tensor
        if value.constant or self._spec.activations == "dynamic":
            return Range.of(tensor).round(tensor, self._grid.activation_levels)
        if value not in self._ranges:
            raise BuildError(
                "its quantization cannot be simulated: forward() calls other operators for these images than "
                f"for the calibration images ({value.operator}, call {value.call})"
            )
        return self._ranges[value].round(tensor, self._grid.activation_levels)

    def weight(self, tensor: torch.Tensor, outputs: Outputs) -> torch.Tensor:
        """Round it, with a scale for each channel where the spec asks for that and the runtime has it."""
        if self._spec.precision in _DTYPES:
            return tensor.to(_DTYPES[self._spec.precision]).float()
        if _scales(outputs, self._spec, self._grid) == "tensor":
            self._raw = (outputs.first(tensor), outputs)
        return round_weight(tensor, outputs, self._spec, self._grid)

    def compute(self, func: OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        """Fold a batch norm into the weight before it: the one scale of all channels depends on that."""
        name = operator_name(func)
        if name in BATCH_NORMS:
            args = (self._folded(args), *args[1:])
        output = func(*args, **kwargs)
        if self.overflowed is None and isinstance(output, torch.Tensor) and _is_beyond(output):
            layer = max(self._tracker.parents, key=len).partition(".")[2]
            self.overflowed = f"operator {name}" + (f" of layer {layer!r}" if layer else "")
        if name in PRODUCTS:
            self._product = _Product(func, args, kwargs, output, *self._raw) if self._raw else None
        self._raw = None
        return output

    def _folded(self, args: tuple[object, ...]) -> object:
        """Return the sums that a batch norm reads, of a weight that was rounded with the gain in it."""
        sums, gamma, _, _, variance, *_, epsilon = args
        product, self._product = self._product, None
        if product is None or product.output is not sums:
            return sums
        assert isinstance(gamma, torch.Tensor)
        assert isinstance(variance, torch.Tensor)
        assert isinstance(epsilon, float)
        gain = gamma / (variance + epsilon).sqrt()
        gain = gain.where(gain != 0, torch.ones_like(gain))
        gain = gain.view(-1, *[1] * (product.raw.dim() - 1))
        return product.compute(_round(product.raw * gain, "tensor", self._grid) / gain)


def _is_beyond(tensor: torch.Tensor) -> bool:
    # A mask is minus infinity.
    return tensor.is_floating_point() and not bool((tensor < torch.inf).all())


def round_weight(weight: torch.Tensor, outputs: Outputs, spec: QuantSpec, grid: Grid) -> torch.Tensor:
    """Round the constant factor of a product, with the scales that the spec asks for and the runtime has."""
    scales = _scales(outputs, spec, grid)
    return weight if scales == "float" else outputs.back(_round(outputs.first(weight), scales, grid))


def _scales(outputs: Outputs, spec: QuantSpec, grid: Grid) -> Scales:
    scales: Scales = "channel"
    if outputs.transposed_groups is not None:
        scales = grid.transposed if outputs.transposed_groups == 1 else grid.transposed_groups
    return "tensor" if scales == "channel" and spec.granularity == "per_tensor" else scales


def _round(weight: torch.Tensor, scales: Scales, grid: Grid) -> torch.Tensor:
    """Round a weight whose output channels are along axis 0."""
    # In float64: the largest weight is in the middle between two steps where levels are 127.5.
    exact = weight.double()
    others = list(range(1, weight.dim()))
    largest = exact.abs().amax(others, keepdim=True) if scales == "channel" else exact.abs().amax()
    scale = (largest / grid.weight_levels).clamp(min=torch.finfo(torch.float32).tiny)
    # 127.5 levels are -128 to 127, 127 are -127 to 127.
    below, above = int(grid.weight_levels + 0.5), int(grid.weight_levels)
    return ((exact / scale).round().clamp(-below, above) * scale).float()
