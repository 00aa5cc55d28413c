"""Which part of the values before a clipping activation an observer sees."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.ao.quantization import (
    MinMaxObserver,
    QConfig,
    QConfigMapping,
    default_weight_observer,
    quantize_fx,
)
from torch.nn import functional as F

from quant_explorer.tracing.observers.clipping import narrow_observers

Forward = Callable[[torch.Tensor], torch.Tensor]
IMAGES = 100 * torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Activated(nn.Module):
    """A convolution whose sums are far beyond what `activation` lets through."""

    def __init__(self, activation: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.activation = nn.Conv2d(3, 4, 3), activation

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, 6, 6) to activations (n, 4, 4, 4)."""
        return self.activation(self.convolution(images))


def fx_prepared(model: nn.Module) -> fx.GraphModule:
    observer = MinMaxObserver.with_args(dtype=torch.quint8)
    mapping = QConfigMapping().set_global(QConfig(observer, default_weight_observer))
    prepared: fx.GraphModule = quantize_fx.prepare_fx(model.eval(), mapping, (IMAGES,))
    return prepared


def pt2e_prepared(model: nn.Module) -> fx.GraphModule:
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    from quant_explorer.core.quantspec import QuantSpec

    xnnpack = pytest.importorskip("quant_explorer.runtimes.executorch.lowering")
    program = torch.export.export(model.eval(), (IMAGES,))
    quantizer = xnnpack.quantizer(QuantSpec("int8", "static", observer="minmax"))
    prepared: fx.GraphModule = prepare_pt2e(program.module(), quantizer)
    return prepared


def seen_of_sums(prepared: fx.GraphModule) -> tuple[float, float]:
    """Return the range that the observer behind the convolution has after `IMAGES`."""
    narrow_observers(prepared)
    with torch.no_grad():
        prepared(IMAGES)
    (observed,) = (
        user
        for node in prepared.graph.nodes
        if node.target in ("convolution", torch.ops.aten.conv2d.default)
        for user in node.users
    )
    observer = prepared.get_submodule(str(observed.target))
    low, high = observer.min_val, observer.max_val
    assert isinstance(low, torch.Tensor)
    assert isinstance(high, torch.Tensor)
    return float(low), float(high)


@pytest.mark.parametrize("prepare", [fx_prepared, pt2e_prepared])
@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [
        pytest.param(nn.ReLU6(), 0.0, 6.0, id="relu6"),
        pytest.param(F.relu6, 0.0, 6.0, id="function"),
        pytest.param(nn.Sequential(nn.ReLU6(), nn.AvgPool2d(2), nn.Flatten()), 0.0, 6.0, id="and a pool"),
        pytest.param(nn.Hardtanh(-2.0, 1.5), -2.0, 1.5, id="hardtanh"),
        pytest.param(nn.Hardswish(), -3.0, math.inf, id="hardswish"),
        pytest.param(lambda sums: sums.clamp(max=4), -math.inf, 4.0, id="clamp"),
        pytest.param(lambda sums: F.relu6(sums) + sums, -math.inf, math.inf, id="read by a sum too"),
        pytest.param(nn.MaxPool2d(2), -math.inf, math.inf, id="max pool"),
    ],
)
def test_an_observer_sees_what_is_read(
    prepare: Callable[[nn.Module], fx.GraphModule], activation: Forward, low: float, high: float
) -> None:
    model = Activated(activation)
    with torch.no_grad():
        sums = model.convolution(IMAGES)
        expected = model(IMAGES)
    prepared = prepare(model)
    seen = seen_of_sums(prepared)
    assert seen == pytest.approx((max(low, float(sums.min())), min(high, float(sums.max()))))
    with torch.no_grad():
        torch.testing.assert_close(prepared(IMAGES), expected)
