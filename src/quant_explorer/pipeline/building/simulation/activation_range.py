"""The range of an activation: how it is found on calibration images, and what it rounds values to."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Of each batch, at random, for the range of least squared error: evenly spaced ones would all be of the same
# columns of a map, which a transposed convolution or a mask makes unlike the others.
_SAMPLES_A_BATCH = 4096
_STEPS = 24
# Masks of attention, which are no part of a range.
_LARGEST = 1e30


@dataclass(frozen=True)
class Affine:
    """A value x is the integer round(x / `scale`) + `zero_point`."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, with 0 inside."""

    low: float
    high: float

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Range:
        """Cover all of `tensor`, and 0."""
        low, high = torch.aminmax(tensor.detach())
        return cls(min(float(low), 0.0), max(float(high), 0.0))

    def affine(self, levels: int) -> Affine | None:
        """Return the scale and zero point of `levels` steps, None where the range is no useful one."""
        scale = (self.high - self.low) / levels
        return Affine(scale, round(-self.low / scale)) if 0 < scale < _LARGEST else None

    def round(self, tensor: torch.Tensor, levels: int) -> torch.Tensor:
        """Clip to the range and round to one of `levels` steps; 0 stays 0."""
        affine = self.affine(levels)
        if affine is None:
            return tensor
        return torch.fake_quantize_per_tensor_affine(tensor, affine.scale, affine.zero_point, 0, levels)


class Observed:
    """What calibration images showed of an activation whose range is not `fixed` by its operator."""

    def __init__(self, fixed: Range | None) -> None:
        """Start without any activation, so without a range."""
        self._fixed = fixed
        self._seen = Range(0.0, 0.0)
        self._samples: list[torch.Tensor] = []
        self._generator = torch.Generator().manual_seed(0)

    def add(self, tensor: torch.Tensor) -> None:
        """See the activation of one batch."""
        seen = Range.of(tensor)
        self._seen = Range(min(self._seen.low, seen.low), max(self._seen.high, seen.high))
        flat = tensor.detach().flatten()
        if len(flat) > _SAMPLES_A_BATCH:
            flat = flat[torch.randint(len(flat), (_SAMPLES_A_BATCH,), generator=self._generator)]
        self._samples.append(flat.clone())

    def min_max(self) -> Range:
        """Return the range of all that was seen."""
        return self._fixed or self._seen

    def least_squares(self, levels: int) -> Range:
        """Return the part of that range which rounds a sample of the values with the least squared error."""
        if self._fixed:
            return self._fixed
        samples, seen = torch.cat(self._samples), self._seen

        def error(candidate: Range) -> float:
            return float((candidate.round(samples, levels) - samples).square().sum())

        shares = [step / _STEPS for step in range(_STEPS, 0, -1)]
        best = min((Range(seen.low, seen.high * share) for share in shares), key=error)
        return min((Range(seen.low * share, best.high) for share in shares), key=error)
