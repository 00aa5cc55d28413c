"""What forward() does in training alone, which a graph of evaluation mode loses: dropout and dropped paths.

Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Final, cast

import torch
from torch import fx, nn
from torch.nn import functional as F

from quant_explorer.core.contracts import Batch
from quant_explorer.tracing.functional_layers import fresh_name

_DROPOUTS: Final[Mapping[object, type[nn.Module]]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
    F.feature_alpha_dropout: nn.FeatureAlphaDropout,
}
_ARGUMENTS: Final = ("input", "p", "training")


def find_skipped(model: nn.Module, example: Batch) -> tuple[type[nn.Module], ...]:
    """Return the kinds of layers, none of PyTorch's own, that return their input in evaluation mode.

    `example` are images (n, C, H, W). Layers with weights, or other layers inside, are none of them.
    """
    copied = copy.deepcopy(model).eval()
    versions: dict[nn.Module, int] = {}
    found: dict[type[nn.Module], None] = {}

    def enter(layer: nn.Module, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], torch.Tensor):
            versions[layer] = args[0]._version

    def leave(layer: nn.Module, args: tuple[object, ...], output: object) -> None:
        # What is written in place is the same tensor too.
        if args and output is args[0] and versions.get(layer) == getattr(output, "_version", None):
            found[type(layer)] = None

    for layer in copied.modules():
        own = type(layer).__module__.startswith("torch.nn.")
        if not own and not any(True for _ in layer.children()) and not list(layer.parameters()):
            layer.register_forward_pre_hook(enter)
            layer.register_forward_hook(leave)
    with torch.no_grad():
        copied(torch.from_numpy(example[:1]))
    return tuple(found)


def make_dropout_modules(graph: fx.GraphModule) -> None:
    """Replace dropout that is called as a function and is off in evaluation mode by modules, which switch."""
    for node in list(graph.graph.nodes):
        given = dict(zip(_ARGUMENTS, node.args, strict=False)) | dict(node.kwargs)
        if node.target not in _DROPOUTS or given.get("training", True) is not False:
            continue
        make = cast(Callable[..., nn.Module], _DROPOUTS[node.target])
        name = fresh_name(graph, f"{node.name}_module")
        graph.add_submodule(name, make(given.get("p", 0.5)).train(graph.training))
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (given["input"],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.recompile()
