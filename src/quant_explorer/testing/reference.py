"""What a lowered model is compared with: definitions written out in float64, by no runtime's library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch
from quant_explorer.core.quantspec import Granularity

if TYPE_CHECKING:
    from torch import nn

# Float32 sums of another order; and rounding ties that fall the other way by one step.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Affine:
    """Scale and zero point of an activation whose quantized values are 0 to `levels`."""

    scale: float
    zero_point: float
    levels: int

    @classmethod
    def of(cls, values: NDArray[np.float64], levels: int = 255) -> Affine:
        """Cover all of `values`, and 0."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        scale = (high - low) / levels
        return cls(scale, float(np.rint(-low / scale)), levels)

    def round_trip(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `values` rounded to the grid of INT8 and scaled back."""
        steps = np.clip(np.rint(values / self.scale) + self.zero_point, 0, self.levels)
        return np.asarray((steps - self.zero_point) * self.scale, np.float64)


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer in float64 with the scales that static INT8 should give it, from the definitions."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    features: NDArray[np.float64]
    weight_scale: NDArray[np.float64]
    activation_levels: int

    @classmethod
    def of(
        cls,
        model: nn.Module,
        batch: Batch,
        granularity: Granularity,
        weight_levels: float,
        activation_levels: int,
    ) -> LinearLayer:
        """Take the only weight and bias of `model`, and the images it is calibrated on and given."""
        weight, bias = (parameter.detach().numpy().astype(np.float64) for parameter in model.parameters())
        rows = np.abs(weight).max(axis=1, keepdims=True)
        largest = rows if granularity == "per_channel" else np.full_like(rows, rows.max())
        features = batch.reshape(len(batch), -1).astype(np.float64)
        return cls(weight, bias, features, largest / weight_levels, activation_levels)

    @property
    def input(self) -> Affine:
        """The grid of the features."""
        return Affine.of(self.features, self.activation_levels)

    @property
    def output(self) -> Affine:
        """Of the float layer's output, which is what an observer sees."""
        return Affine.of(self.sums(), self.activation_levels)

    def sums(self) -> NDArray[np.float64]:
        """The layer in float."""
        return self.features @ self.weight.T + self.bias

    def quantized_sums(self) -> NDArray[np.float64]:
        """The layer with weights and features quantized, its output not yet."""
        steps = np.clip(np.rint(self.weight / self.weight_scale), -128, 127)
        return self.input.round_trip(self.features) @ (steps * self.weight_scale).T + self.bias

    def half_steps(self) -> NDArray[np.float64]:
        """Largest possible error: half a step of every weight and feature, one of the output.

        |w^x^ - wx| <= |w| dx + |x| dw + dx dw, summed over the features; half an output step for rounding
        and half for a range that is a step too narrow.
        """
        half_input, half_weight = self.input.scale / 2, self.weight_scale / 2
        per_weight = (np.abs(self.weight) * half_input + half_input * half_weight).sum(axis=1)
        per_feature = np.abs(self.features).sum(axis=1, keepdims=True) * half_weight.T
        return np.asarray(per_weight + per_feature + self.output.scale, np.float64)


def float_logits(model: nn.Module, batch: Batch) -> Batch:
    """Return what the float model itself computes."""
    import torch

    with torch.no_grad():
        logits: Batch = model(torch.from_numpy(batch)).numpy()
    return logits


def differences(before: nn.Module, after: nn.Module) -> list[str]:
    """Name what differs between two models: tensors, training modes, modules, attributes, hooks."""
    import torch

    found: list[str] = []
    old, new = before.state_dict(), after.state_dict()
    found += sorted(old.keys() ^ new.keys())
    found += [name for name in old.keys() & new.keys() if not torch.equal(old[name], new[name])]
    modules, others = dict(before.named_modules()), dict(after.named_modules())
    found += sorted(modules.keys() ^ others.keys())
    for name in modules.keys() & others.keys():
        mine, theirs = modules[name], others[name]
        if type(mine) is not type(theirs) or mine.training != theirs.training:
            found.append(f"{name} (type or training mode)")
        found += [f"{name}.{key}" for key in sorted(vars(mine).keys() ^ vars(theirs).keys())]
        if theirs._forward_hooks or theirs._forward_pre_hooks:
            found.append(f"{name} (hooks)")
    return found
