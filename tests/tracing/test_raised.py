"""An exported program has its layers again, by their names."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.tracing.capture import capture
from quant_explorer.tracing.raised import raise_layers


class Net(nn.Module):
    """Layers, the same as functions, in-place operators, and a sum of which the operand is read again."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8))
        self.stem.append(nn.ReLU6(inplace=True))
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, groups=8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)
        self.register_buffer("scale", torch.full((1, 8, 1, 1), 0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = functional.hardswish(self.depthwise(self.stem(images)))
        features += 1
        again = features * self.scale
        again += features
        logits: torch.Tensor = self.head(self.norm(again.mean((2, 3))))
        return logits


def test_it_computes_the_same_with_layers_of_the_same_names() -> None:
    torch.manual_seed(0)
    model = Net().eval()
    raised = raise_layers(capture(model, (3, 8, 8)))
    kinds = {"stem.0": nn.Conv2d, "stem.1": nn.BatchNorm2d, "depthwise": nn.Conv2d, "head": nn.Linear}
    assert {name: type(raised.get_submodule(name)) for name in kinds} == kinds
    assert raised.state_dict().keys() == model.state_dict().keys()
    for count in (1, 2, 17):
        images = torch.rand(count, 3, 8, 8)
        with torch.no_grad():
            assert torch.allclose(raised(images), model(images), atol=1e-6)


class Branching(nn.Module):
    """Its control flow is in the program."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((2, 3))
        chosen: torch.Tensor = torch.cond(means.sum() > 0, lambda x: 2 * x, lambda x: x + 1, (means,))
        return chosen


def test_branches_stay() -> None:
    raised = raise_layers(capture(Branching(), (3, 2, 2)))
    ones = torch.ones(2, 3, 2, 2)
    assert torch.equal(raised(ones), torch.full((2, 3), 2.0))
    assert torch.equal(raised(-ones), torch.zeros(2, 3))
