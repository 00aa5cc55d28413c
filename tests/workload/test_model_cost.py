import torch
from torch import Tensor, nn

from quant_explorer.workload.model_cost import analyze_model


class Branching(nn.Module):
    """A layer behind a branch that torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.conv(images)
        return found if bool(torch.isfinite(found).all()) else -found


def test_layers_and_peak_are_put_together() -> None:
    cost = analyze_model(nn.Sequential(nn.Conv2d(3, 2, 1)), (3, 4, 4))
    assert (cost.input_shape, cost.macs) == ((3, 4, 4), 96)
    assert (cost.peak_activation_elements, cost.peak_node, cost.peak_reason) == (48 + 32, "0", None)


def test_a_model_that_cannot_be_traced_has_layers_and_a_reason() -> None:
    cost = analyze_model(Branching(), (3, 4, 4))
    assert [layer.name for layer in cost.layers] == ["conv"]
    assert cost.peak_activation_elements is None
    assert cost.peak_reason is not None
    assert "torch.fx" in cost.peak_reason
