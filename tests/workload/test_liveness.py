from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.models.small_cnn import SmallCnn
from quant_explorer.workload.liveness import Peak, find_peak

fixed = settings(derandomize=True, deadline=None, max_examples=60)
IMAGE = (2, 4, 4)
# An operation and which earlier values it reads (positions counted from the newest).
Step = tuple[str, int, int]
OPERATIONS = ("conv", "relu", "relu_", "dropout", "flat", "add", "add_", "twin", "part")


def _layer(kind: str) -> nn.Module:
    match kind:
        case "conv":
            return nn.Conv2d(2, 2, 3, padding=1)
        case "twin":
            return nn.Conv2d(2, 4, 1)
        case "relu" | "relu_":
            return nn.ReLU(inplace=kind == "relu_")
        case _:
            return nn.Dropout()


class Chain(nn.Module):
    """Runs steps over all values so far, each (1, 2, 4, 4); returns the newest."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList(_layer(kind) for kind, _, _ in steps)

    def forward(self, image: Tensor) -> Tensor:
        values = [image]
        for (kind, first, second), layer in zip(self.steps, self.layers, strict=True):
            left, right = (values[-1 - back % len(values)] for back in (first, second))
            if kind == "flat":
                values.append(left.view(1, 32).reshape(1, 2, 4, 4))
            elif kind == "add":
                values.append(left + right)
            elif kind == "add_":
                values.append(left.add_(right))
            elif kind == "twin":
                upper, lower = layer(left).chunk(2, dim=1)
                values += [upper, lower]
            elif kind == "part":
                values.append(torch.cat([left[:, :1], right[:, 1:]], dim=1))
            else:
                values.append(layer(left))
        return values[-1]


def peak_by_force(steps: list[Step]) -> int:
    """At each step, look through all later ones for whatever is still read, and add it up."""
    storage, size = [0], {0: 32}
    reads: list[set[int]] = [set()]
    for kind, first, second in steps:
        left, right = (storage[-1 - back % len(storage)] for back in (first, second))
        two = kind in ("add", "add_", "part")
        aliases = kind in ("relu_", "dropout", "flat", "add_")
        new = left if aliases else len(size)
        size.setdefault(new, 64 if kind == "twin" else 32)
        touched = {left, new, *({right} if two else ())}
        if kind == "part":
            # cat reads both halves after they were cut.
            reads.append({left})
            reads.append({left, right})
        reads.append(touched)
        if kind == "twin":
            # chunk and its two parts read what the convolution made.
            reads.append({new})
        storage.extend([new, new] if kind == "twin" else [new])
    reads.append({storage[-1]})
    peak = 0
    for step in range(len(reads)):
        begun = set().union({0}, *reads[: step + 1])
        later = set().union(*reads[step:])
        peak = max(peak, sum(size[tensor] for tensor in begun & later))
    return peak


steps = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(0, 5)), max_size=12)


@fixed
@given(steps)
def test_chains_with_residuals_have_the_peak_found_by_force(steps: list[Step]) -> None:
    assert find_peak(Chain(steps), IMAGE).elements == peak_by_force(steps)


@pytest.mark.parametrize(
    ("layers", "peak"),
    [
        ([nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(inplace=True)], Peak(32 + 128, "0")),
        ([nn.Conv2d(2, 8, 3, padding=1), nn.ReLU()], Peak(128 + 128, "1")),
        ([nn.Conv2d(2, 8, 3, padding=1), nn.Flatten(), nn.Dropout()], Peak(32 + 128, "0")),
        ([nn.Identity()], Peak(32, "image")),
    ],
)
def test_views_and_in_place_layers_share_memory(layers: list[nn.Module], peak: Peak) -> None:
    class Named(nn.Sequential):
        def forward(self, image: Tensor) -> Tensor:
            for layer in self:
                image = layer(image)
            return image

    assert find_peak(Named(*layers), IMAGE) == peak


def test_small_cnn_needs_the_input_and_output_of_its_first_batch_norm() -> None:
    model = SmallCnn().build(10, (3, 32, 32))
    assert find_peak(model, (3, 32, 32)) == Peak(2 * 32 * 32 * 32, "block1.bn1")


def test_parameters_that_the_graph_reads_are_no_activations() -> None:
    class Shifted(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(1, 2, 4, 4))
            self.register_buffer("scale", torch.ones(1, 1, 1, 1))

        def forward(self, image: Tensor) -> Tensor:
            return image + self.shift.expand(1, 2, 4, 4) * self.scale

    # The product and the sum, and the image.
    assert find_peak(Shifted(), IMAGE).elements == 3 * 32


@fx.wrap
def cut(image: Tensor) -> Tensor:
    """One channel of a new tensor: a step that keeps more than it shows."""
    return (image + 1)[:, :1]


def test_a_part_keeps_the_whole_in_memory() -> None:
    class Cutting(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return cut(image).neg()

    assert find_peak(Cutting(), IMAGE) == Peak(32 + 32, "cut")


def test_what_depends_on_the_input_cannot_be_traced() -> None:
    class Branching(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(UnsupportedError, match=r"cannot be traced to a graph by torch\.fx"):
        find_peak(Branching(), IMAGE)


def test_the_model_is_not_touched() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    find_peak(model, IMAGE)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
