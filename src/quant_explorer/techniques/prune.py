"""Structured pruning: whole channels are removed, and what is left is a smaller, dense network.

A channel goes with all that makes or reads it: its filter, its batch norm, the channels it is added to in a
residual sum, the columns of the layers behind it. Of each such group of n channels, the round(ratio n) of
least importance are removed, one at least is kept. With the K weight tensors of a group, and w the weights of
the k-th that belong to channel c:

    l1           I(c) = 1/K sum_k sum |w|
    l2           I(c) = 1/K sum_k sum w^2
    taylor       I(c) = 1/K sum_k sum |w dL/dw|, of convolutions and linear layers
    batch_norm   I(c) = 1/K sum_k |gamma|, of batch norms; a group without one is left whole

L is the cross entropy of the calibration images with the classes the model itself predicts for labels, so no
image needs a label. Ties go to the channel with the smaller number.
Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023 (groups, torch-pruning); Li et al.,
"Pruning Filters for Efficient ConvNets", ICLR 2017 (l1); Molchanov et al., "Importance Estimation for Neural
Network Pruning", CVPR 2019 (taylor); Liu et al., "Network Slimming", ICCV 2017 (batch_norm).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from quant_explorer.core.contracts import Batch, Candidate, Workbench
from quant_explorer.core.errors import UnsupportedError, explain
from quant_explorer.core.packages import explain_missing
from quant_explorer.core.settings import Importance

if TYPE_CHECKING:
    import torch
    from torch import nn

# What torch-pruning (by not loading, too) and a user's forward() on narrower tensors fail with.
_NOT_FOLLOWED = (
    *(AssertionError, AttributeError, ImportError, IndexError, KeyError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)


@dataclass(frozen=True)
class Pruned:
    """A pruned model and what is left of the one it was made from, each as (before, after).

    `channels` are those of all groups that could be pruned; `macs` are multiply-accumulates of one image.
    """

    model: nn.Module
    channels: tuple[int, int]
    parameters: tuple[int, int]
    macs: tuple[int, int]

    def describe(self, ratio: float) -> str:
        """Return the ratio that was asked for beside what was reached."""
        return (
            f"pruned: {ratio:.1%} of the channels asked, {_share(self.channels)} reached; "
            f"{_share(self.parameters)} of the parameters ({_change(self.parameters)}) and "
            f"{_share(self.macs)} of the multiply-accumulates ({_change(self.macs)}) are gone"
        )


@dataclass(frozen=True)
class ChannelPruning:
    """Remove the share `ratio` of the channels of each group, by `importance`; the outputs are kept.

    `round_to` rounds the channels that stay up to a multiple of it, as vector kernels like them (8, 16).
    """

    ratio: float = 0.5
    importance: Importance = "l1"
    round_to: int = 1
    name: ClassVar[str] = "prune"
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = False

    def unsupported(self, candidate: Candidate) -> str | None:
        """Say what is out of range or missing; whether the model can be traced, `apply` finds out."""
        from torch import nn
        from torch.nn.modules.batchnorm import _BatchNorm
        from torch.nn.modules.conv import _ConvNd

        if not 0 < self.ratio < 1:
            return f"ratio {self.ratio} is out of range. Allowed: above 0 and below 1"
        if self.importance not in get_args(Importance):
            return f"unknown importance {self.importance!r}. Allowed: {', '.join(get_args(Importance))}"
        if self.round_to < 1:
            return f"round_to {self.round_to} is out of range. Allowed: at least 1"
        modules = list(candidate.model.modules())
        if sum(isinstance(module, _ConvNd | nn.Linear) for module in modules) < 2:
            return "the model has no layer before the one that gives its outputs, so no channels to remove"
        if self.importance == "batch_norm" and not any(isinstance(module, _BatchNorm) for module in modules):
            return "the model has no batch norm to take the importance from; use l1, l2 or taylor"
        return explain_missing("prune", "torch-pruning")

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return the candidate with a pruned copy of its model and a note on what was reached.

        Raises UnsupportedError when the model cannot be traced or nothing in it can be removed.
        """
        pruned = self.prune(candidate.model, workbench.calibration)
        notes = (*candidate.notes, pruned.describe(self.ratio))
        return dataclasses.replace(candidate, model=pruned.model, notes=notes, channels=pruned.channels)

    def prune(self, model: nn.Module, batches: Sequence[Batch]) -> Pruned:
        """Return a pruned copy in evaluation mode; `batches` are of images (n, channels, height, width).

        Raises UnsupportedError as `apply` does.
        """
        import torch

        pruned = copy.deepcopy(model).eval()
        example = torch.from_numpy(batches[0][:1])
        trainable = {name: parameter.requires_grad for name, parameter in pruned.named_parameters()}
        with torch.inference_mode(mode=False), torch.enable_grad():
            # The graph is read from autograd, which sees nothing of frozen parameters.
            pruned.requires_grad_(True)
            try:
                before = _measure(pruned, example)
                channels = self._prune_in_place(pruned, example, batches)
                after = _measure(pruned, example)
            except _NOT_FOLLOWED as error:
                raise UnsupportedError(
                    f"the channels of the model cannot be followed through its layers ({explain(error)}); "
                    "sizes written as numbers in forward() must be taken from the tensors"
                ) from error
        if after.output != before.output:
            raise UnsupportedError(f"pruning changes the output from {before.output} to {after.output}")
        for name, parameter in pruned.named_parameters():
            # A weight that two layers shared has two names now.
            parameter.requires_grad_(trainable.get(name, True))
            parameter.grad = None
        return Pruned(pruned, channels, (before.parameters, after.parameters), (before.macs, after.macs))

    def _prune_in_place(
        self, model: nn.Module, example: torch.Tensor, batches: Sequence[Batch]
    ) -> tuple[int, int]:
        import torch_pruning

        graph = torch_pruning.DependencyGraph()
        # A list, because a tensor would be spread over the arguments of forward().
        graph.build_dependency(model, example_inputs=[example], verbose=False)
        if self.importance == "taylor":
            _set_gradients(model, batches)
        # All are chosen before the first is removed: importances are those of the whole model.
        groups = [(group, list(self._worst(group, graph))) for group in _inner_groups(graph)]
        total, removed = (
            sum(len(group[0].idxs) for group, _ in groups),
            sum(len(worst) for _, worst in groups),
        )
        if not removed:
            raise UnsupportedError(
                f"no channel can be removed at ratio {self.ratio}: {total} channels lie between the input "
                "and the outputs of the model"
            )
        for group, worst in groups:
            if worst:
                group.prune(worst)
        return total, total - removed

    def _worst(self, group: Any, graph: Any) -> Iterator[int]:
        """Yield the channels of a group to remove; the blocks of a grouped convolution lose the same ones."""
        from torch_pruning import importance

        scores = {
            "l1": importance.GroupMagnitudeImportance(p=1, normalizer=None),
            "l2": importance.GroupMagnitudeImportance(p=2, normalizer=None),
            "taylor": importance.GroupTaylorImportance(normalizer=None),
            "batch_norm": importance.BNScaleImportance(normalizer=None),
        }[self.importance](group)
        blocks = _blocks(group, graph)
        if scores is None or len(scores) % blocks:
            return
        scores = scores.view(blocks, -1).mean(0)
        kept = max(1, len(scores) - round(self.ratio * len(scores)))
        kept = min(len(scores), -(-kept // self.round_to) * self.round_to)
        for worst in scores.argsort(stable=True)[: len(scores) - kept].tolist():
            yield from range(worst, len(scores) * blocks, len(scores))


@dataclass(frozen=True)
class _Measured:
    parameters: int
    macs: int
    output: tuple[int, ...]


def _measure(model: nn.Module, example: torch.Tensor) -> _Measured:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = model(example)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return _Measured(parameters, counter.get_total_flops() // 2, tuple(output.shape))


def _set_gradients(model: nn.Module, batches: Sequence[Batch]) -> None:
    import torch

    for batch in batches:
        logits = model(torch.from_numpy(batch))
        torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()


def _inner_groups(graph: Any) -> list[Any]:
    """Return the groups of channels that do not reach the outputs of the model."""
    return [
        group
        for group in graph.get_all_groups()
        if not any(
            graph.is_out_channel_pruning_fn(item.dep.handler) and not item.dep.target.outputs
            for item in group
        )
    ]


def _blocks(group: Any, graph: Any) -> int:
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


def _share(count: tuple[int, int]) -> str:
    return f"{1 - count[1] / count[0]:.1%}"


def _change(count: tuple[int, int]) -> str:
    return f"{count[0]:,} to {count[1]:,}"
