"""Dynamic INT8: weights of linear layers in INT8, activations quantized at run time.

At each call the range [min, max] of the layer's input gives scale and zero
point (how many bits, the runtime decides and says); the product runs in INT8 and is scaled back to float.
Source: PyTorch, "Dynamic quantization", https://docs.pytorch.org/docs/2.9/quantization.html.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from quant_explorer.core.contracts import Candidate, Workbench


@dataclass(frozen=True)
class DynamicInt8:
    """Ask for dynamic INT8, one weight scale per output channel. Without parameters."""

    name: ClassVar[str] = "dynamic_int8"
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = False

    def versions(self) -> dict[str, str]:
        """Nothing but PyTorch decides what it makes."""
        return {}

    def unsupported(self, candidate: Candidate) -> str | None:
        """Only linear layers are quantized dynamically; a model without any would stay FP32."""
        from torch import nn

        if any(isinstance(module, nn.Linear) for module in candidate.model.modules()):
            return None
        return "the model has no nn.Linear layer, so nothing would be quantized"

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return the candidate with the spec changed; the model is the same object."""
        spec = dataclasses.replace(
            candidate.spec, precision="int8", activations="dynamic", granularity="per_channel"
        )
        return dataclasses.replace(candidate, spec=spec)
