"""Half precision: weights and products in 16 bits, BF16 (8 bits of fraction) or FP16 (11 bits).

Whether the products really run in 16 bits is the runtime's and the CPU's affair: many CPUs only store
FP16 and BF16 and compute in FP32.
Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018 (FP16); Kalamkar et al., "A Study of
BFLOAT16 for Deep Learning Training", 2019 (BF16).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from quant_explorer.core.contracts import Candidate, Workbench


@dataclass(frozen=True)
class HalfPrecision:
    """Ask for 16-bit floating point: `precision` is "bf16" or "fp16"."""

    precision: Literal["bf16", "fp16"] = "bf16"
    name: ClassVar[str] = "half_precision"
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = False

    def versions(self) -> dict[str, str]:
        """Nothing but PyTorch decides what it makes."""
        return {}

    def unsupported(self, candidate: Candidate) -> str | None:
        """A precision can be asked for once."""
        if candidate.spec.precision != "fp32":
            return f"the recipe asks for {candidate.spec.precision} already"
        return None

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return the candidate with the spec changed; the model is the same object."""
        spec = dataclasses.replace(candidate.spec, precision=self.precision)
        return dataclasses.replace(candidate, spec=spec)
