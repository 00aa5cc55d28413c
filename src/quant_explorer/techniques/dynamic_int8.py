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
from quant_explorer.techniques.float_layers import explain_unmatched, find_float_layers, split_patterns


@dataclass(frozen=True)
class DynamicInt8:
    """Ask for dynamic INT8, one weight scale per output channel.

    `float_layers` are patterns with commas between them, of layers that stay in float.
    """

    float_layers: str = ""
    name: ClassVar[str] = "dynamic_int8"
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = False

    def versions(self) -> dict[str, str]:
        """Nothing but PyTorch decides what it makes."""
        return {}

    def unsupported(self, candidate: Candidate) -> str | None:
        """Only linear layers are quantized dynamically; a model without any would stay FP32."""
        from quant_explorer.tracing.onnx_program import linear_layers

        if linear_layers(candidate.model):
            return explain_unmatched(candidate.model, split_patterns(self.float_layers))
        return "the model has no nn.Linear layer, so nothing would be quantized"

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return the candidate with the spec changed; the model is the same object."""
        spec = dataclasses.replace(
            candidate.spec,
            precision="int8",
            activations="dynamic",
            granularity="per_channel",
            float_layers=(
                *candidate.spec.float_layers,
                *find_float_layers(candidate.model, split_patterns(self.float_layers)),
            ),
        )
        return dataclasses.replace(candidate, spec=spec)
