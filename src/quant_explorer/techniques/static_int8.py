"""Static INT8: weights and activations in INT8, with ranges fixed before deployment.

q = clamp(round(x / s) + z, qmin, qmax), and x is approximated by s (q - z). Weights are symmetric
(z = 0) with s = max|w| / 127.5 per tensor or per output channel; activations are affine, one s and z
a tensor, from the range the observer finds on the calibration images.
Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference", CVPR 2018; Krishnamoorthi, "Quantizing deep convolutional networks", 2018 (per channel).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.quantspec import Granularity, Observer


@dataclass(frozen=True)
class StaticInt8:
    """Ask for static INT8. `granularity` is that of the weights, `observer` that of the activations."""

    granularity: Granularity = "per_channel"
    observer: Observer = "histogram"
    name: ClassVar[str] = "static_int8"
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = False

    def versions(self) -> dict[str, str]:
        """Nothing but PyTorch decides what it makes."""
        return {}

    def unsupported(self, candidate: Candidate) -> str | None:
        """Static INT8 applies to any float model; whether a runtime can lower it is the runtime's to say."""
        return None

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return the candidate with the spec changed; the model is the same object."""
        spec = dataclasses.replace(
            candidate.spec,
            precision="int8",
            activations="static",
            granularity=self.granularity,
            observer=self.observer,
        )
        return dataclasses.replace(candidate, spec=spec)
