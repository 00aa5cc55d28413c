"""An exported graph in the words that PT2E's quantizers and the kernels behind them know.

It computes the same. What they overlook otherwise gets lost (the factor of a sum), stays in float (functional
layers, weights that are computed) or ends the lowering (padding by name).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import fx, nn
from torch._ops import OpOverload

_aten = torch.ops.aten
# Sums with the place of the operand that `alpha` multiplies.
_SUMS: Final[dict[object, int]] = {
    **dict.fromkeys((_aten.add.Tensor, _aten.add_.Tensor, _aten.sub.Tensor, _aten.sub_.Tensor), 1),
    _aten.rsub.Tensor: 0,
}
_CONVOLUTIONS: Final[dict[object, OpOverload]] = {
    _aten.conv1d.padding: _aten.conv1d.default,
    _aten.conv2d.padding: _aten.conv2d.default,
    _aten.conv3d.padding: _aten.conv3d.default,
}
# Of convolutions whose padding is named: images and weight are always given.
_DEFAULTS: Final = (None, None, None, 1, "valid", 1, 1)
# Which kind of layer quantizers take an operator for, whoever calls it.
_LAYERS: Final[dict[object, type[nn.Module]]] = {
    _aten.conv2d.default: nn.Conv2d,
    _aten.linear.default: nn.Linear,
}
_KINDS: Final = {f"{kind.__module__}.{kind.__qualname__}" for kind in _LAYERS.values()}


def rewrite(graph: fx.GraphModule) -> None:
    """Fold what is the same for all images; spell out factors of sums, bounds and paddings, in place."""
    _fold_constants(graph)
    for node in list(graph.graph.nodes):
        if node.target in _SUMS:
            _spell_out_alpha(graph.graph, node)
        elif node.target is _aten.clamp.Tensor:
            _spell_out_bounds(graph.graph, node)
        elif node.target in _CONVOLUTIONS:
            _spell_out_padding(graph.graph, node)
    for node in graph.graph.nodes:
        if node.target in _LAYERS and _is_parameter(node.args[1]):
            node.meta["source_fn_stack"] = [(node.name, _LAYERS[node.target])]
        elif node.op == "call_function" and _kind_of_layer(node) in _KINDS:
            # A part of the layer that is not its product, for instance what pads by reflection.
            node.meta.setdefault("source_fn_stack", [(node.name, node.target)])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _fold_constants(graph: fx.GraphModule) -> None:
    """Replace what is computed from parameters alone, a standardized weight or a mask, by its value."""
    values: dict[fx.Node, torch.Tensor] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            value = attribute(graph, str(node.target))
            if isinstance(value, torch.Tensor):
                values[node] = value
        elif _is_foldable(node) and all(source in values for source in node.all_input_nodes):
            args = fx.map_arg(node.args, values.__getitem__)
            kwargs = fx.map_arg(node.kwargs, values.__getitem__)
            result = node.target(*args, **kwargs)
            if isinstance(result, torch.Tensor):
                values[node] = result
    for number, (node, value) in enumerate(values.items()):
        if node.op == "get_attr" or all(user in values for user in node.users):
            continue
        name = f"_folded_{number}"
        graph.register_buffer(name, value.detach().clone())
        with graph.graph.inserting_before(node):
            folded = graph.graph.get_attr(name)
        folded.meta = _origin(node) | {"val": value}
        node.replace_all_uses_with(folded)


def _is_foldable(node: fx.Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    written = [node, *node.users]
    mutable = any(isinstance(item.target, OpOverload) and item.target._schema.is_mutable for item in written)
    return not mutable and torch.Tag.nondeterministic_seeded not in node.target.tags


def _spell_out_alpha(graph: fx.Graph, node: fx.Node) -> None:
    kwargs = dict(node.kwargs)
    alpha = kwargs.pop("alpha", 1)
    if alpha == 1:
        return
    assert isinstance(alpha, int | float)
    place = _SUMS[node.target]
    operand = node.args[place]
    if isinstance(operand, int | float):
        node.update_arg(place, alpha * operand)
    else:
        with graph.inserting_before(node):
            factor = graph.call_function(_aten.mul.Tensor, (operand, alpha))
        factor.meta = _origin(node) | {"source_fn_stack": [(factor.name, torch.mul)]}
        node.update_arg(place, factor)
    node.kwargs = kwargs


def _spell_out_bounds(graph: fx.Graph, node: fx.Node) -> None:
    """Write a clamp to tensors as a maximum and a minimum: kernels with a clamp in them take numbers."""
    images, low, high = (*node.args, None, None)[:3]
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    for limit, choose in ((low, _aten.maximum.default), (high, _aten.minimum.default)):
        if limit is not None:
            with graph.inserting_before(node):
                images = graph.call_function(choose, (images, limit))
            images.meta = _origin(node)
    assert isinstance(images, fx.Node)
    node.replace_all_uses_with(images)


def _spell_out_padding(graph: fx.Graph, node: fx.Node) -> None:
    """Replace padding="same" by numbers; where one side gets more, by a padded input."""
    arguments = [*node.args, *_DEFAULTS[len(node.args) :]]
    images, weight, bias, stride, padding, dilation, groups = arguments
    assert isinstance(weight, fx.Node)
    sizes: Sequence[int] = weight.meta["val"].shape[2:]
    dilations = _for_each(dilation, len(sizes))
    whole = [
        step * (size - 1) if padding == "same" else 0 for step, size in zip(dilations, sizes, strict=True)
    ]
    before = [total // 2 for total in whole]
    if any(total % 2 for total in whole):
        sides = [side for total in reversed(whole) for side in (total // 2, total - total // 2)]
        with graph.inserting_before(node):
            padded = graph.call_function(_aten.constant_pad_nd.default, (images, sides, 0.0))
        padded.meta = _origin(node) | {"source_fn_stack": [(padded.name, nn.functional.pad)]}
        images, before = padded, [0] * len(sizes)
    strides = _for_each(stride, len(sizes))
    node.target = _CONVOLUTIONS[node.target]
    node.args = (images, weight, bias, strides, before, dilations, groups)


def _for_each(setting: object, axes: int) -> list[int]:
    """Return a setting of a convolution for each axis."""
    if isinstance(setting, int):
        return [setting] * axes
    assert isinstance(setting, Sequence)
    return list(setting) * (axes // len(setting))


def _origin(node: fx.Node) -> dict[str, object]:
    """Return what says where in the model the node comes from; sizes are noted again after rewriting."""
    return {key: node.meta[key] for key in ("nn_module_stack", "stack_trace") if key in node.meta}


def _kind_of_layer(node: fx.Node) -> str:
    """Return the type of the innermost layer that the node was called in."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][1]) if stack else ""


def _is_parameter(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def attribute(graph: fx.GraphModule, name: str) -> object:
    """Return the parameter or buffer of a qualified name."""
    owner, _, leaf = name.rpartition(".")
    return getattr(graph.get_submodule(owner), leaf)
