"""Masks of attention keep their values, and leave the scores theirs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import toy_batches

pytest.importorskip("executorch")
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)

from quant_explorer.runtimes.torch_graph import pt2e

SHAPE = (3, 4, 4)
BATCHES: tuple[Batch, ...] = toy_batches(SHAPE)
LATER = torch.ones(3, 3, dtype=torch.bool).triu(1)


class Attention(nn.Module):
    def __init__(self, mask: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.embed, self.head, self.mask = nn.Linear(16, 16), nn.Linear(48, 4), mask

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(images.flatten(2))
        weights = self.mask(tokens @ tokens.transpose(1, 2)).softmax(-1)
        logits: torch.Tensor = self.head((weights @ tokens).flatten(1))
        return logits


@pytest.mark.parametrize(
    "mask",
    [
        lambda scores: scores + torch.zeros(3, 3).masked_fill(LATER, -1e9),
        lambda scores: scores - 1e5 * LATER.float(),
        lambda scores: scores.masked_fill(LATER, -torch.inf),
        lambda scores: torch.where(LATER, torch.finfo(torch.float32).min, scores),
        lambda scores: (scores + torch.full((3, 3), -1e9).triu(1)).view(-1, 1, 3, 3).squeeze(1) + 0.5,
    ],
)
def test_a_mask_leaves_the_scores_their_values(mask: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = Attention(mask).eval()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    graph = pt2e.quantize(pt2e.export(model, SHAPE), BATCHES, quantizer)
    with torch.no_grad():
        found = sqnr_db(graph(torch.from_numpy(BATCHES[0])).numpy(), float_logits(model, BATCHES[0]))
    assert found is not None
    assert found > 20
