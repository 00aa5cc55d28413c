"""What is computed of tokens behind a reduction, for several images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("openvino")

from quant_explorer.runtimes.onnx_graph.export import export_onnx
from quant_explorer.runtimes.openvino.lowering import run_once
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import toy_batches

REDUCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda tokens: tokens.mean(2),
    "mean that keeps its dimension": lambda tokens: tokens.mean(-1, keepdim=True).flatten(1),
    "sum": lambda tokens: tokens.sum(2),
    "largest": lambda tokens: tokens.amax(2),
    "smallest": lambda tokens: tokens.amin(2),
    "norm": lambda tokens: torch.linalg.vector_norm(tokens, dim=2),
}


class Tokens(nn.Module):
    """A number of each token, against one of a vector."""

    def __init__(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.reduce = reduce
        self.places: torch.Tensor
        self.register_buffer("places", torch.arange(16.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reduce(x.flatten(2)[:, 0].unflatten(1, (16, -1))) / 8 - self.places


@pytest.mark.parametrize("name", REDUCTIONS)
def test_vectors_meet_each_token(name: str) -> None:
    """The CPU plugin gave the second image the vector of the first one's tokens, or others."""
    model, images = Tokens(REDUCTIONS[name]).eval(), toy_batches()[0]
    found = run_once(export_onnx(model, images))(images)
    np.testing.assert_allclose(found, float_logits(model, images), atol=1e-5)
