"""Structured pruning: whole channels are removed, and what is left is a smaller, dense network.

A channel goes with all that makes or reads it: its filter, its batch norm, the channels it is added to in a
residual sum, the columns of the layers behind it. Of each such group of n channels, the round(ratio n) of
least importance are removed, one at least is kept. With the K weight tensors of a group, and w the weights of
the k-th that belong to channel c:

    l1           I(c) = 1/K sum_k sum |w|
    l2           I(c) = 1/K sum_k sum w^2
    taylor       I(c) = 1/K sum_k sum |w dL/dw|, of convolutions and linear layers
    batch_norm   I(c) = 1/K sum_k |gamma|, of batch norms; a group without one is left whole

The result is checked: on calibration images it must compute what the model computes whose removed weights are
zero. A group for which that fails is left whole and named in the notes: the graph does not follow a channel
shuffle, and a channel of zeros is not an absent one where a mean is taken over channels. So are groups that a
layer norm or group norm reads, whose statistics are over the channels.

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
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.host.packages import explain_missing
from quant_explorer.core.settings.groups import Importance
from quant_explorer.techniques.channel_groups import (
    NOT_FOLLOWED,
    Choice,
    count_blocks,
    find_wrong,
    follow,
    inner_groups,
    norms_over_channels,
    remove,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


_CHECKED_IMAGES = 4


@dataclass(frozen=True)
class Pruned:
    """A pruned model and what is left of the one it was made from, each as (before, after).

    `channels` are those of all groups between input and outputs; `macs` are multiply-accumulates of one
    image; `whole` names the groups that were left as they are, with the reason.
    """

    model: nn.Module
    channels: tuple[int, int]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    whole: tuple[str, ...] = ()

    def describe(self, ratio: float) -> tuple[str, ...]:
        """Return the ratio that was asked for beside what was reached, and what was left whole."""
        return (
            f"pruned: {ratio:.1%} of the channels asked, {_share(self.channels)} reached; "
            f"{_share(self.parameters)} of the parameters ({_change(self.parameters)}) and "
            f"{_share(self.macs)} of the multiply-accumulates ({_change(self.macs)}) are gone",
            *(f"not pruned: {group}" for group in self.whole),
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
    version: ClassVar[int] = 3
    trains: ClassVar[bool] = False

    def versions(self) -> dict[str, str]:
        """Nothing but PyTorch decides what it makes."""
        return {}

    def unsupported(self, candidate: Candidate) -> str | None:
        """Say what is out of range or missing; whether the model can be traced, `apply` finds out."""
        from torch import nn
        from torch.nn.modules.batchnorm import _BatchNorm
        from torch.nn.modules.conv import _ConvNd

        from quant_explorer.tracing.onnx_program import explain_no_module

        if reason := explain_no_module(candidate.model):
            return reason
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
        notes = (*candidate.notes, *pruned.describe(self.ratio))
        return dataclasses.replace(candidate, model=pruned.model, notes=notes, channels=pruned.channels)

    def prune(self, model: nn.Module, batches: Sequence[Batch]) -> Pruned:
        """Return a pruned copy in evaluation mode; `batches` are of images (n, channels, height, width).

        Raises UnsupportedError as `apply` does.
        """
        import torch

        from quant_explorer.tracing.reasons import explain_refusal

        original = copy.deepcopy(model).eval()
        images = torch.from_numpy(batches[0][:_CHECKED_IMAGES])
        with torch.inference_mode(mode=False), torch.enable_grad():
            # The graph is read from autograd, which sees nothing of frozen parameters.
            original.requires_grad_(True)
            with explain_refusal(
                "the channels of the model cannot be followed through its layers", "", *NOT_FOLLOWED
            ):
                choices, whole = self._choose(original, images, batches)
            original.zero_grad()
            removing = [choice for choice in choices if choice.worst]
            pruned, reason = remove(original, images, removing)
            if reason is not None:
                wrong = dict(find_wrong(original, images, removing))
                whole += [f"{choice.layer}, {reason}" for choice, reason in wrong.items()]
                removing = [choice for choice in removing if choice not in wrong]
                pruned, reason = remove(original, images, removing)
                whole += [f"the others together, {reason}"] if reason else []
            total, removed = sum(c.channels for c in choices), sum(len(c.worst) for c in removing)
            if reason is not None or not removed:
                raise UnsupportedError(
                    f"no channel can be removed at ratio {self.ratio}: {total} channels lie between the "
                    f"input and the outputs of the model{''.join(f'; not pruned: {name}' for name in whole)}"
                )
            before, after = _measure(original, images[:1]), _measure(pruned, images[:1])
        trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        for name, parameter in pruned.named_parameters():
            # A weight that two layers shared has two names now.
            parameter.requires_grad_(trainable.get(name, True))
            parameter.grad = None
        return Pruned(
            model=pruned,
            channels=(total, total - removed),
            parameters=(before.parameters, after.parameters),
            macs=(before.macs, after.macs),
            whole=tuple(whole),
        )

    def _choose(
        self, model: nn.Module, images: torch.Tensor, batches: Sequence[Batch]
    ) -> tuple[list[Choice], list[str]]:
        """Return what to remove of each group, and which groups no channel can be removed of."""
        from quant_explorer.tracing.reasons import in_brackets

        graph = follow(model, images)
        if self.importance == "taylor":
            _set_gradients(model, batches)
        names = {module: name for name, module in (*model.named_modules(), *model.named_parameters())}
        choices: list[Choice] = []
        whole: list[str] = []
        for number, group in enumerate(inner_groups(graph)):
            layer = names[group[0].dep.target.module]
            norms = [names[norm] for norm in norms_over_channels(model, group)]
            worst: tuple[int, ...] = ()
            if norms:
                others = f" (and {len(norms) - 1} more)" if norms[1:] else ""
                whole.append(f"{layer}, whose channels {norms[0]}{others} takes its statistics over")
            else:
                try:
                    worst = tuple(self._worst(group, graph))
                except NOT_FOLLOWED as error:
                    whole.append(f"{layer}, whose channels cannot be followed{in_brackets(error)}")
            choices.append(Choice(number, layer, len(group[0].idxs), worst))
        return choices, whole

    def _worst(self, group: Any, graph: Any) -> Iterator[int]:
        """Yield the channels of a group to remove; the blocks of a grouped convolution lose the same ones."""
        from torch_pruning import importance

        scores = {
            "l1": importance.GroupMagnitudeImportance(p=1, normalizer=None),
            "l2": importance.GroupMagnitudeImportance(p=2, normalizer=None),
            "taylor": importance.GroupTaylorImportance(normalizer=None),
            "batch_norm": importance.BNScaleImportance(normalizer=None),
        }[self.importance](group)
        blocks = count_blocks(group, graph)
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


def _measure(model: nn.Module, example: torch.Tensor) -> _Measured:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from quant_explorer.tracing.flops import FORMULAS

    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        model(example)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return _Measured(parameters, counter.get_total_flops() // 2)


def _set_gradients(model: nn.Module, batches: Sequence[Batch]) -> None:
    import torch

    for batch in batches:
        logits = model(torch.from_numpy(batch))
        torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()


def _share(count: tuple[int, int]) -> str:
    return f"{1 - count[1] / count[0]:.1%}"


def _change(count: tuple[int, int]) -> str:
    return f"{count[0]:,} to {count[1]:,}"
