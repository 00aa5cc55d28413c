"""Batch norms of a float graph that XNNPACK's own pass would fold into the wrong weights."""

from __future__ import annotations

from typing import Final

import torch

from quant_explorer.runtimes.torch_graph.rewriting import attribute

_aten = torch.ops.aten
_BATCH_NORM: Final = _aten.batch_norm.default
_OF_VECTORS: Final = 2


def separate_norms(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Keep XNNPACK's pass from folding batch norms wrongly, in place; return `graph`, a float one.

    It keeps folded weights by the name of the weights, so that those of a layer's last call would serve all
    calls: further ones get copies.
    """
    _spell_out_norms_of_tokens(graph)
    seen: set[str] = set()
    for node in list(graph.graph.nodes):
        if _BATCH_NORM not in {user.target for user in node.users}:
            continue
        for position, read in enumerate(node.args):
            if not isinstance(read, torch.fx.Node) or read.op != "get_attr":
                continue
            name = str(read.target)
            if name in seen:
                value = _value(graph, read)
                own = f"{name.replace('.', '_')}_of_{node.name}"
                graph.register_parameter(own, torch.nn.Parameter(value.detach().clone(), requires_grad=False))
                with graph.graph.inserting_before(node):
                    node.update_arg(position, graph.graph.get_attr(own))
            seen.add(name)
    graph.recompile()
    return graph


def _spell_out_norms_of_tokens(graph: torch.fx.GraphModule) -> None:
    """Write a batch norm over tokens (n, tokens, width) behind a linear layer as a product and a sum.

    The pass would fold it into the layer, as if its channels were the layer's.
    """
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.target is _BATCH_NORM else None
        if not isinstance(source, torch.fx.Node) or source.target is not _aten.linear.default:
            continue
        if source.meta["val"].dim() <= _OF_VECTORS:
            continue
        mean, variance = (_value(graph, node.args[position]) for position in (3, 4))
        gain = torch.rsqrt(variance + node.args[7])
        gain = gain if node.args[1] is None else gain * _value(graph, node.args[1])
        shift = -mean * gain if node.args[2] is None else _value(graph, node.args[2]) - mean * gain
        made = source
        for name, operator, value in (("gain", _aten.mul.Tensor, gain), ("shift", _aten.add.Tensor, shift)):
            graph.register_buffer(f"{node.name}_{name}", value.detach().unsqueeze(-1))
            with graph.graph.inserting_before(node):
                made = graph.graph.call_function(
                    operator, (made, graph.graph.get_attr(f"{node.name}_{name}"))
                )
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()


def _value(graph: torch.fx.GraphModule, node: object) -> torch.Tensor:
    assert isinstance(node, torch.fx.Node)
    value = attribute(graph, str(node.target))
    assert isinstance(value, torch.Tensor)
    return value
