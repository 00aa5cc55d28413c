"""What INT8 leaves in float, and that the rest of the model keeps near the float one."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.runtimes.eager.runtime import select_engine
from quant_explorer.runtimes.torch_graph import fx
from quant_explorer.runtimes.torch_graph.engine import quantized_engine
from quant_explorer.testing.zoo import ZOO
from quant_explorer.tracing.left_in_float import leave_in_float
from quant_explorer.tracing.normal_form import normalize
from quant_explorer.tracing.plain import make_plain

STATIC = QuantSpec("int8", "static")
# Far above what each was with its fault (-1 to 17 dB), below what 7 bits cost.
LEAST_DB = 20.0


def lowered(name: str) -> tuple[float, tuple[str, ...]]:
    specimen = ZOO[name]
    model, images = specimen.model(), specimen.images(16, seed=3)
    engine = select_engine("")
    with quantized_engine(engine), torch.no_grad():
        found = fx.quantize(Candidate(make_plain(model), STATIC), [specimen.images(8, seed=4)], engine)
        logits = found.module(torch.from_numpy(images)).numpy()
        db = sqnr_db(logits, model(torch.from_numpy(images)).numpy())
    assert db is not None
    return db, found.notes


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("add_alpha", ""),
        ("shared_linear", ""),
        ("shared_norms", ""),
        ("instance_norm_statistics", ""),
        ("scalars_from_shape", ""),
        ("padding_same_even", ""),
        ("prelu", "in float: PyTorch's INT8 PReLU"),
        ("attention_mask_lowest", "in float: a mask takes the range"),
        ("linear_attention", "in float: a denominator rounded to 0"),
        ("generalized_mean", "in float: a quotient, logarithm or root"),
        ("mish_written_out", "in float: a quotient, logarithm or root"),
        ("soft_pool", "exp, avg_pool2d_1 stay in float: a denominator rounded to 0"),
        # Values whose observers FX takes for those of others.
        ("mixed_weights", "in float: its weights are computed"),
        ("generated_filters", "in float: its weights are computed"),
        ("softplus_tanh", ""),
        ("gate_split", ""),
        ("gate_joined", ""),
    ],
)
def test_int8_is_near_the_float_model(name: str, note: str) -> None:
    db, notes = lowered(name)
    assert db > LEAST_DB
    assert not note or any(note.rpartition("in float")[2] in known for known in notes)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(self.layer(x)) + x
        return logits


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add(x.flip(2))


def test_what_a_module_in_float_calls_is_excluded_and_nothing_else() -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    graph = normalize(Residual().eval(), images)
    mapping = quantization.QConfigMapping()
    leave_in_float(mapping, graph, ["inner"])
    excluded = {(function, number) for _, function, number in mapping.module_name_object_type_order_qconfigs}
    assert (torch.add, 0) in excluded
    assert not any(function is operator.add for function, _ in excluded)
