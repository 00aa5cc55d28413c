"""Batch norms are folded where that is the same function, and only there."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.runtimes.torch_graph import fusion
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import settle_batch_norms, toy_batches

IMAGES = toy_batches()[0]


class Branched(nn.Module):
    """What is before the batch norm is used elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        logits: torch.Tensor = (x + self.norm(x)).mean((2, 3))
        return logits


class Shared(nn.Module):
    """One convolution before two batch norms, and a ReLU after one of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(self.convolution(x)))
        logits: torch.Tensor = self.second(self.convolution(x)).mean((2, 3))
        return logits


class Read(nn.Module):
    """The weights of the convolution before the batch norm are used again, without it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.convolution(x))
        return F.conv2d(x, self.convolution.weight).mean((2, 3))


class SharedNorm(nn.Module):
    """One batch norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.norm(self.other(self.norm(self.one(x)))).mean((2, 3))
        return logits


class Tokens(nn.Module):
    """The batch norm is over 16 tokens, the linear layer over 16 features."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(48, 16), nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.transpose(1, 2).flatten(2)
        logits: torch.Tensor = self.norm(self.embed(tokens)).mean(2)
        return logits


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten())


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda _, inputs, output: output + inputs[0])
    return layer


FOLDED = {
    "convolution": lambda: sequence(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
    "without bias": lambda: sequence(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6, eps=0.1)),
    "one dimension": lambda: sequence(nn.Flatten(2), nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)),
    "three dimensions": lambda: sequence(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4)),
    "transposed": lambda: sequence(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
    "without weights": lambda: sequence(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "linear": lambda: sequence(nn.Flatten(), nn.Linear(768, 4), nn.BatchNorm1d(4)),
    "norm of two": SharedNorm,
    "shared": Shared,
    "read elsewhere": Read,
}
KEPT = {
    "used elsewhere": Branched,
    "first": lambda: sequence(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
    "of the batch itself": lambda: sequence(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    "transposed in groups": lambda: sequence(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
    "of tokens": Tokens,
}


# Called as a function, with what the hook computes behind it.
WRITTEN_OUT = {"with a hook": lambda: sequence(nn.Conv2d(3, 4, 3), hooked(nn.BatchNorm2d(4)))}


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@pytest.mark.parametrize("name", [*FOLDED, *KEPT, *WRITTEN_OUT])
def test_the_graph_computes_what_the_model_computes(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = (FOLDED | KEPT | WRITTEN_OUT)[name]()
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.affine and module.track_running_stats:
                settle_batch_norms(module)
    model.eval()
    graph = fusion.fuse(model, IMAGES)
    expected = float_logits(model, IMAGES)
    torch.testing.assert_close(float_logits(graph, IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert norms(graph) == (norms(model) if name in KEPT else 0)


class Counting(nn.Module):
    """Computes something else in each call, which no graph can say."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Counting.calls += 1
        return x.mean((2, 3)) * Counting.calls


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0 else -x


def test_a_graph_that_computes_something_else_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"computes something else .*keep values from call to call"):
        fusion.fuse(Counting().eval(), IMAGES)


def test_what_cannot_be_traced_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        UnsupportedError,
        match=r"cannot be traced .*`return x if .*` \(test_fusion.py.*move it out of",
    ):
        fusion.fuse(Branch().eval(), IMAGES)


def test_a_norm_without_weights_stays_behind_a_linear_layer() -> None:
    norm = nn.BatchNorm1d(5, affine=False)
    norm.running_mean, norm.running_var = torch.linspace(-1, 1, 5), torch.linspace(0.5, 2, 5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), norm).eval()
    (images,) = toy_batches((3, 2, 2), count=1)
    fused = fusion.fuse(model, images)
    assert torch.allclose(fused(torch.from_numpy(images)), model(torch.from_numpy(images)), atol=1e-6)
