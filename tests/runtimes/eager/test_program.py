"""Unusual models: what is written computes the same to the last bit, or is refused with a reason."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import BuildError
from quant_explorer.runtimes.eager import program
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.runtimes.torch_graph import fusion
from quant_explorer.testing.conformance_runtime import SPECS
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import toy_batches, toy_model

BATCHES = toy_batches((3, 8, 8))


class Around(nn.Module):
    """A convolution and a linear layer around `middle`, which keeps 8 channels."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.inside = middle or nn.Identity()
        self.head = nn.Linear(8, 4)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inside(x)
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.middle(F.relu(self.convolution(x))).mean((2, 3)))
        return logits


class Parameter(Around):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Buffer(Around):
    offset: torch.Tensor

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("offset", torch.rand(1, 8, 1, 1), persistent=persistent)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.offset


class Nested(Around):
    def __init__(self) -> None:
        super().__init__()
        self.deeper = Buffer(persistent=False)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.deeper.offset


class PlainTensor(Around):
    def __init__(self) -> None:
        super().__init__()
        self.constant = torch.rand(1, 8, 1, 1)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.constant.clamp(max=float("inf"))


class FunctionalConvolution(Around):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 8, 3, 3))
        self.bias = nn.Parameter(torch.rand(8))

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, self.bias, (1, 1), (1, 1), (1, 1), 1)


class Attention(Around):
    def __init__(self, bias: bool) -> None:
        super().__init__(nn.MultiheadAttention(8, 2, bias=bias, batch_first=True))

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        out: torch.Tensor = self.inside(tokens, tokens, tokens, need_weights=False)[0]
        return out.transpose(1, 2).unsqueeze(3)


class WithoutBias(Around):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(8, 8, 1, bias=False))
        self.head = nn.Linear(8, 4, bias=False)


# All specs.
WORKS: dict[str, Callable[[], nn.Module]] = {
    "parameter": Parameter,
    "buffer": lambda: Buffer(persistent=True),
    "buffer outside the state dict": lambda: Buffer(persistent=False),
    "buffer of a module that is not called": Nested,
    "plain tensor and infinity": PlainTensor,
    "no bias": WithoutBias,
    "infinite setting": lambda: Around(nn.Hardtanh(-float("inf"), 1.0)),
    "p-norm of infinity": lambda: Around(nn.LPPool2d(float("inf"), 2)),
    "dropout": lambda: Around(nn.Dropout2d(0.3)),
    "reflected padding": lambda: Around(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")),
    "transposed": lambda: Around(nn.ConvTranspose2d(8, 8, 2, 2)),
    "group norm": lambda: Around(nn.GroupNorm(2, 8)),
    "leaky": lambda: Around(nn.LeakyReLU(0.07)),
    "hardswish": lambda: Around(nn.Hardswish()),
    "sigmoid": lambda: Around(nn.Sigmoid()),
    "gelu": lambda: Around(nn.GELU("tanh")),
    "upsample": lambda: Around(nn.Upsample(scale_factor=2, mode="bilinear")),
    "attention": lambda: Attention(bias=True),
    "attention without bias": lambda: Attention(bias=False),
    "functional convolution": FunctionalConvolution,
    "layer norm": lambda: Around(nn.LayerNorm([8, 8, 8])),
    "prelu": lambda: Around(nn.PReLU(8)),
}


def make_seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make().eval()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", WORKS)
def test_works(name: str, spec: str, tmp_path: Path) -> None:
    """`write` compares to the last bit; here the float model is the judge."""
    model = make_seeded(WORKS[name])
    Eager().lower(Candidate(model, SPECS[spec]), BATCHES, tmp_path)
    logits, expected = Eager().open(tmp_path).run(BATCHES[0]), float_logits(model, BATCHES[0])
    tolerance = 1e-4 if spec == "fp32" else 0.1
    assert np.abs(logits - expected).max() <= tolerance * np.abs(expected).max()


def test_files_that_compute_something_else_are_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be if a layer's setting got lost on the way."""
    constructor = program._constructor

    def forgetful(module: nn.Module, name: str, imports: set[str]) -> str:
        return constructor(module, name, imports).replace("stride=(2, 2)", "stride=(1, 1)")

    graph = fusion.fuse(
        nn.Sequential(nn.Conv2d(3, 4, 1, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), BATCHES[0]
    )
    program.write(graph, tmp_path, BATCHES[0], engine=None)
    monkeypatch.setattr(program, "_constructor", forgetful)
    with pytest.raises(BuildError, match=r"model\.py does not compute what the traced model computes"):
        program.write(graph, tmp_path, BATCHES[0], engine=None)


def test_layers_can_be_replaced_after_loading(tmp_path: Path) -> None:
    """In the model and in a copy of it, as in any other nn.Module."""
    Eager().lower(Candidate(toy_model(), SPECS["fp32"]), toy_batches(), tmp_path)
    model = program.read(tmp_path)
    twin = copy.deepcopy(model)
    images = torch.from_numpy(toy_batches()[0])
    expected = model(images)
    for changed, other in ((twin, model), (model, twin)):
        setattr(changed, "9", nn.Linear(16, 7))
        assert changed(images).shape == (len(images), 7)
        if changed is twin:
            assert torch.equal(other(images), expected)


def test_source_is_readable_and_the_state_dict_is_safe(tmp_path: Path) -> None:
    Eager().lower(Candidate(toy_model(), SPECS["static_int8_per_channel"]), toy_batches(), tmp_path)
    source = (tmp_path / "model.py").read_text()
    compile(source, "model.py", "exec")
    assert "class Model(torch.nn.Module)" in source
    assert "quant_explorer" not in source
    assert str(tmp_path) not in source
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert {"0.weight", "0.bias", "0.scale", "0.zero_point", "4.weight"} <= set(state)
