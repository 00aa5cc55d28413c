"""What INT8 leaves in float of an exported graph: operands of quotients, logarithms, roots; computed weights.

The rule is that of ONNX graphs: an error of what a logarithm, a root or a quotient is taken of grows as that,
or the divisor, comes near 0.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import fx

_aten = torch.ops.aten
_CONVOLUTIONS: Final = (
    *(_aten.conv1d, _aten.conv2d, _aten.conv3d, _aten.linear),
    *(_aten.conv_transpose1d, _aten.conv_transpose2d, _aten.conv_transpose3d),
)
_QUOTIENTS: Final = (_aten.div, _aten.div_)
_STEEP: Final = (
    *(_aten.reciprocal, _aten.rsqrt, _aten.log, _aten.log2, _aten.log10, _aten.log1p, _aten.logsumexp),
    *(_aten.sqrt, _aten.sqrt_),
)
_CLIPPING: Final = (_aten.relu, _aten.clamp)
# Between the last layers and these.
_ARITHMETIC: Final = (
    *(_aten.add, _aten.add_, _aten.sub, _aten.rsub, _aten.mul, _aten.mul_, _aten.div, _aten.div_, _aten.pow),
    *(_aten.exp, _aten.log, _aten.abs, _aten.sqrt, _aten.square, _aten.clamp, _aten.relu, _aten.sum),
    *(_aten.mean, _aten.avg_pool2d, _aten.adaptive_avg_pool2d, _aten.linalg_vector_norm, _aten.matmul),
    *(_aten.view, _aten.reshape, _aten.flatten, _aten.permute, _aten.transpose, _aten.squeeze),
    *(_aten.unsqueeze, _aten.expand, _aten.slice, _aten.select),
)


def find_sensitive(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the arithmetic that serves divisions by tensors, logarithms and roots alone.

    And layers whose weights are computed from images.
    """
    nodes = list(graph.graph.nodes)
    computed = {node for node in nodes if _packet(node) in _CONVOLUTIONS and not _is_attribute(node.args[1])}
    steep = {node for node in nodes if _is_steep(node)}
    found: set[fx.Node] = set()
    waiting = [operand for node in steep for operand in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if _packet(node) in _ARITHMETIC and node not in found and not _is_fused(node):
            found.add(node)
            waiting += node.all_input_nodes
    while shared := {node for node in found if not node.users.keys() <= found | steep | _sizes(node)}:
        found -= shared
    return found | computed


def _is_fused(node: fx.Node) -> bool:
    """Say whether a node clips the sums of a layer: kernels of both have its grid for their output."""
    return _packet(node) in _CLIPPING and _packet(node.all_input_nodes[0]) in _CONVOLUTIONS


def _sizes(node: fx.Node) -> set[fx.Node]:
    return {user for user in node.users if _packet(user) is _aten.sym_size}


def _is_steep(node: fx.Node) -> bool:
    if _packet(node) is _aten.pow:
        return not isinstance(node.args[1], int)
    if _packet(node) in _QUOTIENTS:
        return isinstance(node.args[1], fx.Node) and not _is_attribute(node.args[1])
    return _packet(node) in _STEEP


def _packet(node: fx.Node) -> object:
    return getattr(node.target, "overloadpacket", None)


def _is_attribute(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"
