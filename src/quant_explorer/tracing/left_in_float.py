"""What INT8 leaves in float: operators that PyTorch's FX quantization computes wrongly, or no grid can hold.

FX chooses by the kind of an operator or the name of a layer. What concerns one call is chosen by its number
among the calls of the same function, for which methods are written as functions.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, cast

import torch
from torch import fx, nn
from torch.ao import quantization
from torch.nn import functional as F

from quant_explorer.core.quantspec import is_inside
from quant_explorer.tracing.functional_layers import KINDS, is_resizing_in_int8
from quant_explorer.tracing.normal_form import FloatGraph

# quantized::prelu multiplies positive values too, quantized::instance_norm has no running statistics, and
# the others compute in float inside.
_KINDS: Final = (
    *(nn.PReLU, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm),
)
_SUMS: Final = (operator.add, operator.iadd, torch.add, "add", "add_")
_FILLS: Final = (torch.masked_fill, "masked_fill", "masked_fill_", torch.where)
_QUOTIENTS: Final = (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_", "divide")
# What moves values, and makes operands of quotients, logarithms and roots.
_MOVES: Final = (
    *("reshape", "view", "flatten", "transpose", "permute", "squeeze", "unsqueeze", "contiguous"),
    *(torch.reshape, torch.flatten, torch.transpose, torch.permute, torch.squeeze, torch.unsqueeze),
    *(operator.getitem, F.dropout),
)
_ARITHMETIC: Final = (
    *(*_SUMS, operator.mul, operator.imul, torch.mul, "mul", "mul_"),
    *(operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm", torch.sum, "sum", torch.clamp, "clamp"),
    *(torch.mean, "mean", operator.sub, operator.isub, torch.sub, "sub", "sub_"),
    *(F.avg_pool2d, F.adaptive_avg_pool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
# What divides by its operand.
_INVERSES: Final = (torch.rsqrt, "rsqrt", "rsqrt_", torch.reciprocal, "reciprocal", "reciprocal_")
_POWERS: Final = (torch.pow, operator.pow, "pow", "pow_")
_SQUARE_ROOTS: Final = (torch.sqrt, "sqrt", "sqrt_")
# What is steep where its operand comes near 0, beside powers with a fraction.
_ROOTS: Final = (
    *(*_SQUARE_ROOTS, torch.log, "log", "log_", torch.log2, "log2", torch.log10, "log10"),
    *(torch.log1p, "log1p", torch.logsumexp, "logsumexp"),
)
_UNARY: Final = (
    *(*_POWERS, *_SQUARE_ROOTS, torch.abs, "abs", torch.exp, "exp", torch.square, "square"),
    *(F.relu, torch.relu, "relu"),
)
# Methods that take sizes one by one.
_TAKE_SIZES: Final = ("reshape", "permute")
# What a sum leaves of the smaller operand: with fewer than 4 the larger, a mask, has taken the range.
_LEAST_LEVELS: Final = 16


def leave_in_float(
    mapping: quantization.QConfigMapping, graph: FloatGraph, float_layers: Sequence[str]
) -> tuple[str, ...]:
    """Exclude from `mapping` what must stay in float, and return notes for the report.

    `float_layers` are names in the model, of layers or of modules with all that they call. Calls of methods
    become calls of functions in the graph.
    """
    for kind in _KINDS:
        mapping.set_object_type(kind, None)
    for name in (*float_layers, *(own for own, known in graph.layers.items() if known in float_layers)):
        mapping.set_module_name(name, None)
    nodes = list(graph.module.graph.nodes)
    masked, computed = _masked(nodes), [node for node in nodes if node.target in KINDS]
    serving = _serving(graph.module, nodes)
    divisors = set(_operands(graph.module, _divisors(nodes)))
    denominators = [node for node in serving if node in divisors]
    steep = [node for node in serving if node not in divisors]
    inside = [node for node in nodes if is_inside(str(node.meta.get("scope", "")), float_layers)]
    # Sizes, what is computed from weights alone, and what is no tensor of real numbers.
    aside = [
        node
        for node in nodes
        if node.meta.get("number") or "constant" in node.meta or node.meta.get("unreal")
    ]
    _exclude(mapping, graph.module, {*masked, *computed, *denominators, *steep, *inside, *aside})
    for name, module in graph.module.named_modules():
        indices = vars(module).get("return_indices") is True
        if indices or (isinstance(module, nn.Upsample) and not is_resizing_in_int8(vars(module))):
            mapping.set_module_name(name, None)
    prelus = sorted({name for name, module in graph.module.named_modules() if isinstance(module, nn.PReLU)})
    return tuple(
        f"{names} in float: {reason}"
        for names, reason in (
            (_list(prelus), "PyTorch's INT8 PReLU multiplies positive values too"),
            (_list(node.name for node in masked), "a mask takes the range of the values it is added to"),
            (_list(node.name for node in computed), "its weights are computed from images"),
            (_list(node.name for node in denominators), "a denominator rounded to 0 divides by zero"),
            (_list(node.name for node in steep), "a quotient, logarithm or root multiplies its error"),
        )
        if names
    )


@contextmanager
def unknown_to_fx(prepared: fx.GraphModule) -> Iterator[None]:
    """Hide the layers of a prepared graph that stay in float while it is converted.

    Between two quantized layers FX replaces activations and norms also where the mapping excludes them, by
    their type.
    """
    layers = [
        layer
        for layer in prepared.modules()
        if vars(layer).get("qconfig", layer) is None and type(layer).__module__.startswith("torch.nn.modules")
    ]
    kinds = [type(layer) for layer in layers]
    for layer, kind in zip(layers, kinds, strict=True):
        layer.__class__ = type(kind.__name__, (kind,), {})
    try:
        yield
    finally:
        for layer, kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind


def _list(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"{listed} stay" if "," in listed else listed and f"{listed} stays"


def _exclude(mapping: quantization.QConfigMapping, graph: fx.GraphModule, excluded: set[fx.Node]) -> None:
    calls: Counter[object] = Counter()
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and node in excluded:
            mapping.set_module_name(str(node.target), None)
        call = _as_function(node) if node in excluded else node
        if call.op != "call_function":
            continue
        if node in excluded:
            function = cast(Callable[..., object], call.target)
            mapping.set_module_name_object_type_order("", function, calls[function], None)
        calls[call.target] += 1
    graph.recompile()


def _as_function(node: fx.Node) -> fx.Node:
    """Write the call of a method as that of a function, where PyTorch has it."""
    function = getattr(torch, str(node.target), None) if node.op == "call_method" else None
    if not callable(function):
        return node
    arguments = node.args
    if node.target in _TAKE_SIZES and len(arguments) > 2:
        arguments = (arguments[0], arguments[1:])
    with node.graph.inserting_before(node):
        call = node.graph.call_function(function, arguments, node.kwargs)
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    node.graph.erase_node(node)
    return call


def _masked(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Return sums with a constant that is far larger than the values, and what moves such values."""
    found: list[fx.Node] = []
    for node in nodes:
        if node.target in _MOVES:
            if any(source in found for source in node.all_input_nodes):
                found.append(node)
            continue
        if node.target not in (*_SUMS, *_FILLS) or "magnitude" not in node.meta:
            continue
        values = [
            source.meta["magnitude"]
            for source in node.all_input_nodes
            if "magnitude" in source.meta and "constant" not in source.meta
        ]
        hides = not node.meta["finite"] or node.meta["magnitude"] > _LEAST_LEVELS * min(values, default=1e9)
        if hides and len(values) < len(node.args):
            found.append(node)
    return found


def _divisors(nodes: Sequence[fx.Node]) -> list[fx.node.Argument]:
    return [node.args[1] for node in nodes if _is_quotient(node)] + [
        node.args[0] for node in nodes if node.target in _INVERSES
    ]


def _is_quotient(node: fx.Node) -> bool:
    """Say whether a node divides by a tensor: errors of the numerator grow as that comes near 0."""
    return node.target in _QUOTIENTS and len(node.args) > 1 and isinstance(node.args[1], fx.Node)


def _is_root(node: fx.Node) -> bool:
    """Say whether a node is a logarithm, a square root, an inverse or a power with a fraction."""
    if node.target in _POWERS:
        return len(node.args) > 1 and not isinstance(node.args[1], int)
    return node.target in (*_ROOTS, *_INVERSES)


def _serving(graph: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Return the arithmetic that serves quotients by tensors, logarithms and roots alone."""
    ends = {node for node in nodes if _is_quotient(node) or _is_root(node)}
    numerators = [node.args[0] for node in ends]
    found = dict.fromkeys(_operands(graph, [*_divisors(nodes), *numerators]))
    sizes = {node for node in nodes if node.meta.get("number")}
    while shared := [node for node in found if not node.users.keys() <= found.keys() | ends | sizes]:
        for node in shared:
            del found[node]
    return [node for node in nodes if node in found]


def _operands(graph: fx.GraphModule, operands: Sequence[fx.node.Argument]) -> list[fx.Node]:
    """Return the arithmetic between the last layers and each of the `operands` that is a tensor."""
    waiting = [operand for operand in operands if isinstance(operand, fx.Node)]
    found: list[fx.Node] = []
    while waiting:
        node = waiting.pop()
        kind = type(graph.get_submodule(str(node.target))) if node.op == "call_module" else node.target
        if kind in (*_ARITHMETIC, *_UNARY, *_MOVES) and "magnitude" in node.meta and node not in found:
            found.append(node)
            waiting += node.all_input_nodes
    return found
