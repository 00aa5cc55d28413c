"""The groups of channels that go together, and whether a model without some of them is still the same.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023 (torch-pruning).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    import torch
    from torch import nn

# What torch-pruning (by not loading, too) and a user's forward() on narrower tensors fail with.
NOT_FOLLOWED = (
    *(AssertionError, AttributeError, ImportError, IndexError, KeyError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError, ZeroDivisionError),
)

# Of the largest logit: sums in another order, after all layers (5e-7 was seen in deep networks).
TOLERANCE = 1e-5
# Dependencies of a group; DenseNet-201 has 198. Those of a slice with a step can come back for ever.
_MOST_DEPENDENCIES = 4000


@dataclass(frozen=True)
class Choice:
    """A group by its number in the graph and the layer that makes its channels; `worst` are to be removed."""

    number: int
    layer: str
    channels: int
    worst: tuple[int, ...]


def follow(model: nn.Module, images: torch.Tensor) -> Any:
    """Return torch-pruning's graph of the model; raises one of NOT_FOLLOWED when it finds none."""
    import torch_pruning

    # A list, because a tensor would be spread over the arguments of forward().
    graph = torch_pruning.DependencyGraph()
    return graph.build_dependency(model, example_inputs=[images[:1]], verbose=False)


def find_wrong(
    model: nn.Module, images: torch.Tensor, choices: Sequence[Choice]
) -> Iterator[tuple[Choice, str]]:
    """Yield the choices that change what is left of the model, with the reason, found by halving."""
    _, reason = remove(model, images, choices)
    if reason is None:
        return
    if len(choices) == 1:
        yield choices[0], reason
        return
    middle = len(choices) // 2
    for half in (choices[:middle], choices[middle:]):
        yield from find_wrong(model, images, half)


def remove(model: nn.Module, images: torch.Tensor, choices: Sequence[Choice]) -> tuple[nn.Module, str | None]:
    """Return a copy of the model without the chosen channels, and why it is another model, or None.

    It must compute for `images` (n, channels, height, width) what the model computes with the weights of
    these channels at zero.
    """
    import torch

    from quant_explorer.tracing.reasons import in_brackets

    pruned = model
    try:
        pruned, zeroed = _cut(model, images, choices)
        with torch.no_grad():
            expected, found = zeroed(images), pruned(images)
    except NOT_FOLLOWED as error:
        return pruned, f"without whose channels the model fails{in_brackets(error)}"
    if expected.shape != found.shape:
        return pruned, f"without whose channels the output has shape {tuple(found.shape)}"
    off = float(
        (found - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    )
    if off <= TOLERANCE:
        return pruned, None
    return pruned, (
        "whose channels are connected in a way that is not followed: without them the output is off by "
        f"{off:.2g} of the largest logit from what it is with their weights at zero"
    )


def _cut(model: nn.Module, images: torch.Tensor, choices: Sequence[Choice]) -> tuple[nn.Module, nn.Module]:
    """Return the model without the chosen channels, and the whole model with their weights at zero."""
    import torch

    pruned, zeroed = copy.deepcopy(model), copy.deepcopy(model)
    groups = inner_groups(follow(pruned, images))
    # Every weight is its own number while the library cuts: what is left tells what was removed.
    for tensor in _floats(pruned).values():
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)
    for choice in choices:
        groups[choice.number].prune(list(choice.worst))
    removed: dict[str, torch.Tensor] = {}
    weights, parameters = _floats(zeroed), dict(zeroed.named_parameters(remove_duplicate=False))
    for name, tensor in _floats(pruned).items():
        kept = tensor.data.long()
        tensor.data = weights[name].data.flatten()[kept]
        if name in parameters:
            removed[name] = torch.ones_like(parameters[name], dtype=torch.bool)
            removed[name].view(-1)[kept.flatten()] = False
    # Only now, because a weight that two layers share was read twice.
    for name, which in removed.items():
        parameters[name].data[which] = 0.0
    return pruned, zeroed


def inner_groups(graph: Any) -> list[Any]:
    """Return the groups of channels that do not reach the outputs of the model."""
    with _bounded():
        return [
            group
            for group in graph.get_all_groups()
            if not any(
                graph.is_out_channel_pruning_fn(item.dep.handler) and not item.dep.target.outputs
                for item in group
            )
        ]


@contextmanager
def _bounded() -> Iterator[None]:
    """Let the search for what depends on a channel fail where it would not end."""
    from torch_pruning.dependency.group import Group

    add = Group.add_dep

    def add_within(group: Any, dep: Any, idxs: Any) -> None:
        if len(group) >= _MOST_DEPENDENCIES:
            raise ValueError("the channels come back to where they were, by slices or by parts")
        add(group, dep, idxs)

    with mock.patch.object(Group, "add_dep", add_within):
        yield


def norms_over_channels(model: nn.Module, group: Any) -> list[nn.Module]:
    """Return the normalizations of `model` whose statistics change with the number of channels of a group."""
    from torch import nn

    # torch-pruning knows no RMS norm, only its weight.
    owners: dict[object, nn.Module] = {
        norm.weight: norm for norm in model.modules() if isinstance(norm, nn.RMSNorm)
    }
    found = dict.fromkeys(owners.get(dep.target.module, dep.target.module) for dep, _ in group)
    return [module for module in found if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm)]


def count_blocks(group: Any, graph: Any) -> int:
    """Return how many blocks of channels must stay equally wide (grouped convolutions, group norms)."""
    found = [1]
    for dep, _ in group:
        layer = dep.target.module
        pruner = graph.get_pruner_of_module(layer)
        # A depthwise convolution has a block for each channel, which goes with it.
        if getattr(layer, "groups", 1) == getattr(layer, "out_channels", None):
            continue
        made = graph.is_out_channel_pruning_fn(dep.handler)
        found.append((pruner.get_out_channel_groups if made else pruner.get_in_channel_groups)(layer))
    return max(found)


def _floats(model: nn.Module) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
