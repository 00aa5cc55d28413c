"""Batch norms folded into the layer before them: a float graph computes the same with fewer operators.

A batch norm in evaluation mode is y = gamma (x - mean) / sqrt(var + eps) + beta, which a convolution or
linear layer before it can do with other weights.
Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, section 3.2; PyTorch, `torch.nn.utils.fusion`.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Final

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.tracing.reasons import TRACING, explain_refusal

# Folding a batch norm only rounds differently; a graph that was traced or folded wrongly is far off.
_TOLERANCE = 1e-3

_CONVOLUTIONS: Final = {nn.BatchNorm1d: nn.Conv1d, nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm3d: nn.Conv3d}
_TRANSPOSED: Final = {
    nn.BatchNorm1d: nn.ConvTranspose1d,
    nn.BatchNorm2d: nn.ConvTranspose2d,
    nn.BatchNorm3d: nn.ConvTranspose3d,
}


def fuse(model: nn.Module, example: Batch) -> fx.GraphModule:
    """Trace a copy of `model`, fold its batch norms, and check the graph on `example` (n, C, H, W).

    Raises UnsupportedError when the model cannot be traced or the graph computes something else.
    """
    float_model = copy.deepcopy(model).eval()
    with explain_refusal(*TRACING):
        graph = fx.symbolic_trace(float_model)
        with torch.no_grad():
            # For the number of dimensions that a linear layer's output has.
            ShapeProp(graph).propagate(torch.from_numpy(example))
    calls, read = _count_calls(graph), layers_read(graph)
    for node in list(graph.graph.nodes):
        if node.op != "call_module":
            continue
        layer = node.args[0] if node.args else None
        if not isinstance(layer, fx.Node) or layer.op != "call_module":
            continue
        # Other users get what is before the batch norm, other calls and readers the same weights.
        if len(layer.users) > 1 or calls[str(layer.target)] > 1 or str(layer.target) in read:
            continue
        folded = _fold(graph, layer, graph.get_submodule(str(node.target)))
        if folded is not None:
            graph.set_submodule(str(layer.target), folded)
            node.replace_all_uses_with(layer)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    check(graph, model, example)
    return graph


def _fold(graph: fx.GraphModule, node: fx.Node, norm: nn.Module) -> nn.Module | None:
    """Return the layer of `node` with `norm` in its weights, or None where that is not the same function."""
    layer = graph.get_submodule(str(node.target))
    # A hook of the norm would be lost, one of the layer would see another output.
    if any(module._forward_hooks or module._forward_pre_hooks for module in (layer, norm)):
        return None
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) or norm.running_mean is None:
        return None
    # torch.nn.utils.fusion takes no linear layer before a norm without weights.
    if type(layer) is nn.Linear and type(norm) is nn.BatchNorm1d and norm.affine:
        # With three dimensions the norm is over the second and the layer over the last.
        return fuse_linear_bn_eval(layer, norm) if len(node.meta["tensor_meta"].shape) == 2 else None
    if type(layer) is _CONVOLUTIONS.get(type(norm)):
        return fuse_conv_bn_eval(layer, norm)
    if type(layer) is _TRANSPOSED.get(type(norm)) and layer.groups == 1:
        return fuse_conv_bn_eval(layer, norm, transpose=True)
    return None


def check(graph: fx.GraphModule, model: nn.Module, example: Batch) -> None:
    """Raise UnsupportedError when `graph` does not compute for `example` (n, C, H, W) what `model` does.

    And when the model computes nothing finite, which no graph could be compared with.
    """
    images = torch.from_numpy(example)
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(images)
        error = (graph(images) - expected).abs().max()
    if not expected.isfinite().all():
        raise UnsupportedError("the outputs of the float model are not finite on calibration images")
    # Written so that NaN is not near.
    if not error <= _TOLERANCE * expected.abs().max():
        raise UnsupportedError(
            "PyTorch's fusion of convolution, batch norm and ReLU changes what the model computes; give each "
            f"call a layer of its own (called more than once: {', '.join(_called_again(graph)) or 'none'})"
        )


def layers_read(graph: fx.GraphModule) -> tuple[str, ...]:
    """Return the layers of `graph` that are called, and whose weights something else reads, too."""
    read = (str(node.target).rpartition(".")[0] for node in graph.graph.nodes if node.op == "get_attr")
    return tuple(dict.fromkeys(name for name in read if name in _count_calls(graph)))


def _count_calls(graph: fx.GraphModule) -> Counter[str]:
    return Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")


def _called_again(graph: fx.GraphModule) -> list[str]:
    calls = _count_calls(graph).items()
    return [name for name, times in calls if times > 1 and list(graph.get_submodule(name).parameters())]
