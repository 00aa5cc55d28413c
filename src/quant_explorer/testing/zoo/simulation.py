"""What INT8 allows: the asked-for rounding, simulated in float, by no runtime's library.

Each operator's output is rounded to 8-bit steps of its range over the calibration images, and weights are; a
batch norm or ReLU right behind a layer belongs to it. Runtimes round less often (they keep some operators or
the output in float), so a right lowering is about as near to the float model, or nearer.
Source: Jacob et al., CVPR 2018 (fake quantization).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from quant_explorer.core.contracts import Batch
from quant_explorer.core.quantspec import QuantSpec

LEVELS: Final = 255
# Values beyond are masks, which no quantizer can give a step.
_MASKED: Final = 1e4
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LAYERS: Final = (nn.modules.conv._ConvNd, nn.Linear)
_JOINED: Final = ("batch_norm", "relu.default", "relu_.default")
# Their output has the scale of their input in every runtime.
_SHARING: Final = ("pool", "clamp", "hardtanh", "upsample", "roll", "pad")
# Whatever the images, PyTorch gives these the range that their values can have.
_FIXED: Final = {"softmax": (0.0, 1.0), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


def simulate(model: nn.Module, spec: QuantSpec, calibration: Sequence[Batch], batch: Batch) -> Batch:
    """Return the logits for `batch` (n, channels, height, width) with the rounding that `spec` asks for."""
    rounded = copy.deepcopy(model)
    linear_only = spec.activations == "dynamic"
    _round_weights(rounded, per_channel=spec.granularity == "per_channel", linear_only=linear_only)
    with torch.no_grad():
        if linear_only:
            for module in rounded.modules():
                if isinstance(module, nn.Linear):
                    module.register_forward_pre_hook(lambda _, inputs: _round(inputs[0], *_range(inputs[0])))
            logits: Batch = rounded(torch.from_numpy(batch)).numpy()
            return logits
        ranges = _Ranges()
        for seen in calibration:
            with _Observed(ranges):
                model(torch.from_numpy(seen))
        images = _round(torch.from_numpy(batch), *_range(torch.from_numpy(np.concatenate(calibration))))
        with _Rounded(ranges):
            logits = rounded(images).numpy()
    return logits


def _range(values: torch.Tensor) -> tuple[float, float]:
    seen = values[values.abs() < _MASKED]
    return (min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)) if seen.numel() else (0.0, 0.0)


def _round(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    step = (high - low) / LEVELS
    if step <= 0:
        return values
    zero_point = round(-low / step)
    rounded = ((values / step).round().clamp(-zero_point, LEVELS - zero_point)) * step
    return torch.where(values.abs() < _MASKED, rounded, values)


def _round_weights(model: nn.Module, *, per_channel: bool, linear_only: bool) -> None:
    owned: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.Linear if linear_only else _LAYERS) and module.weight.is_leaf:
            axis = 1 if isinstance(module, _TRANSPOSED) else 0
            others = tuple(number for number in range(module.weight.dim()) if number != axis)
            owned.add(id(module.weight))
            largest = module.weight.abs().amax(others, keepdim=True)
            _round_symmetric(module.weight, largest if per_channel else largest.amax())
    for parameter in [] if linear_only else model.parameters():
        if parameter.dim() > 1 and id(parameter) not in owned:
            _round_symmetric(parameter, parameter.abs().amax())


def _round_symmetric(weight: torch.Tensor, largest: torch.Tensor) -> None:
    step = (largest / 127).clamp_min(1e-12)
    with torch.no_grad():
        weight.copy_((weight / step).round() * step)


class _Ranges:
    """The range of each operator's output, in the order of their calls.

    `joined` ones are not rounded, `shared` ones have the range of the one before, `fixed` ones theirs.
    """

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.joined: set[int] = set()
        self.shared: set[int] = set()
        self.fixed: dict[int, tuple[float, float]] = {}


class _EachOutput(TorchDispatchMode):
    def __init__(self, ranges: _Ranges) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ranges = ranges
        self.position = 0
        self.last: torch.Tensor | None = None

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = func(*args, **(kwargs or {}))
        first = output[0] if isinstance(output, tuple) else output
        if func.is_view or not isinstance(first, torch.Tensor) or not first.is_floating_point():
            return output
        position, self.position = self.position, self.position + 1
        if args and args[0] is self.last:
            if any(name in str(func) for name in _JOINED):
                self.ranges.joined.add(position - 1)
            if position and any(name in str(func) for name in _SHARING):
                self.ranges.shared.add(position)
        for name, bounds in _FIXED.items():
            if name in str(func) and "hard" not in str(func):
                self.ranges.fixed[position] = bounds
        first = self.visit(position, first)
        self.last = first
        return (first, *output[1:]) if isinstance(output, tuple) else first

    def visit(self, position: int, values: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class _Observed(_EachOutput):
    def visit(self, position: int, values: torch.Tensor) -> torch.Tensor:
        low, high = _range(values)
        if position == len(self.ranges.low):
            self.ranges.low.append(low)
            self.ranges.high.append(high)
        self.ranges.low[position] = min(low, self.ranges.low[position])
        self.ranges.high[position] = max(high, self.ranges.high[position])
        return values


class _Rounded(_EachOutput):
    def visit(self, position: int, values: torch.Tensor) -> torch.Tensor:
        if position in self.ranges.joined:
            return values
        source = position
        while source in self.ranges.shared:
            source -= 1
        observed = self.ranges.low[source], self.ranges.high[source]
        rounded = _round(values, *self.ranges.fixed.get(source, observed))
        # In place, for the operators that work in place: others hold the same tensor.
        return values.copy_(rounded)
