"""What vendors' quantizers raise becomes a reason."""

from pathlib import Path

import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import UnsupportedError, require_supported
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.toys import toy_batches


class Narrow(nn.Module):
    """Values from `offset` on that have no 2,048 steps in float32."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 4)
        self.factor, self.offset = factor, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer((x.flatten(1) * self.factor + self.offset).relu())
        return logits


@pytest.mark.parametrize(("name", "factor", "offset"), [("onnxruntime", 1e-43, 0.0), ("openvino", 1e-6, 1.0)])
def test_values_that_have_no_histogram_are_refused(
    name: str, factor: float, offset: float, tmp_path: Path
) -> None:
    runtime = RUNTIMES[name]()
    require_supported(runtime.unavailable())
    spec = QuantSpec("int8", "static", observer="histogram")
    with pytest.raises(UnsupportedError, match=r"too small or too much alike for a histogram of them; keep"):
        runtime.lower(Candidate(Narrow(factor, offset).eval(), spec), toy_batches((3, 4, 4)), tmp_path)
