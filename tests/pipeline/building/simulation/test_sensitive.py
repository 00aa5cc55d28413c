"""What divisions, logarithms and roots are taken of is not rounded, what else reads it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import Grid, QuantSpec
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.pipeline.building.simulation import Simulation
from quant_explorer.pipeline.building.simulation.following import IMAGES, Value
from quant_explorer.pipeline.building.simulation.sensitive import Call, find_unrounded
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import toy_batches

Function = Callable[[torch.Tensor], torch.Tensor]
BATCH = toy_batches((3, 8, 8))[0]


class Pooled(nn.Module):
    def __init__(self, pool: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.pool, self.linear = nn.Conv2d(3, 8, 3), pool, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(self.pool(self.convolution(x)))
        return logits


def powers(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=1e-6).pow(8).mean((2, 3)).pow(1 / 8)


def logarithms(x: torch.Tensor) -> torch.Tensor:
    return torch.log(torch.exp(8 * x).sum((2, 3)))


def mish(x: torch.Tensor) -> torch.Tensor:
    return (x * torch.tanh(torch.log(1 + torch.exp(12 * x)))).mean((2, 3))


@pytest.mark.parametrize("pool", [powers, logarithms, mish])
def test_it_is_as_near_as_runtimes_that_leave_it_in_float(pool: Function) -> None:
    """Rounded, these are at 2 to 11 dB."""
    model = Pooled(pool).eval()
    simulation = Simulation(Candidate(model, QuantSpec("int8", "static", "per_channel", "minmax")), (BATCH,))
    expected = float_logits(model, BATCH)
    for logits in simulation.run(BATCH, Grid()):
        found = sqnr_db(logits, expected)
        assert found is not None
        assert found > 30


def test_it_reaches_back_to_the_last_layers_through_what_nothing_else_reads() -> None:
    layer, square, total, root, other = (
        Value(call, name) for call, name in enumerate(("convolution", "mul", "sum", "sqrt", "mul"), start=1)
    )
    calls = {
        layer: Call((IMAGES,), steep=False),
        square: Call((layer, layer), steep=False),
        total: Call((square,), steep=False),
        root: Call((total,), steep=True),
    }
    assert find_unrounded(calls) == {square, total}
    assert find_unrounded(calls | {other: Call((square,), steep=False)}) == {total}


def test_readers_that_serve_the_same_division_leave_a_value_unrounded() -> None:
    layer, weights, weighted, total, mean = (
        Value(call, name) for call, name in enumerate(("convolution", "exp", "mul", "sum", "div"), start=1)
    )
    calls = {
        layer: Call((IMAGES,), steep=False),
        weights: Call((layer,), steep=False),
        weighted: Call((layer, weights), steep=False),
        total: Call((weights,), steep=False),
        mean: Call((weighted, total), steep=True),
    }
    assert find_unrounded(calls) == {weights, weighted, total}
