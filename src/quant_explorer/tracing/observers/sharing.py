"""Values that PyTorch's FX quantization gives the observer of others, whose grid does not fit them.

FX lets what keeps the grid of its operand share the observer there, and looks for it through operators that
stay in float: weights computed from a sigmoid would get its range, 0 to 1. It takes a product with a number
for such an operator, whose operand would be as coarse as the product. What a sigmoid or tanh reads of an
operator in float would get the fixed range of their results. And `torch.cat` has the grid of its first
operand, which a product with a number or a sigmoid does not take from any observer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import fx, nn
from torch.ao import quantization

_JOINS: Final = (torch.cat, torch.concat, torch.concatenate)
_ARITHMETIC: Final = (operator.add, torch.add, operator.mul, torch.mul)
_FIXED: Final = (quantization.FixedQParamsObserver, quantization.FixedQParamsFakeQuantize)
# The kind of operator of products and sums with a number.
_WITH_NUMBER: Final = "with a number"


@dataclass(frozen=True)
class _Group:
    """Observers in a graph whose values have one grid, and the kinds of the operators that chose it."""

    places: list[fx.Node] = field(default_factory=list)
    kinds: set[object] = field(default_factory=set)


def separate_observers(prepared: fx.GraphModule, mapping: quantization.QConfigMapping) -> None:
    """Give values that share an observer without sharing a grid one each, in place, before calibration.

    A range that `mapping` fixes for an operator is that of its results alone.
    """
    default, kinds = mapping.global_qconfig, mapping.object_type_qconfigs
    assert default is not None
    fixed: dict[object, Callable[[], nn.Module]] = {
        kind: qconfig.activation
        for kind, qconfig in kinds.items()
        if qconfig is not None and isinstance(qconfig.activation(), _FIXED)
    }
    taken: set[nn.Module] = set()
    for group in _groups(prepared, {*fixed, _WITH_NUMBER}):
        observer = prepared.get_submodule(str(group.places[0].target))
        kind = next(iter(group.kinds)) if len(group.kinds) == 1 else None
        if observer in taken or isinstance(observer, _FIXED) != (kind in fixed):
            observer = fixed.get(kind, default.activation)()
        taken.add(observer)
        for place in group.places:
            prepared.set_submodule(str(place.target), observer)


def requantize_joined(prepared: fx.GraphModule) -> None:
    """Let all that a `torch.cat` joins be rounded to its grid, in place."""
    for join in prepared.graph.nodes:
        joined = next((user for user in join.users if _is_observer(prepared, user)), None)
        if join.target not in _JOINS or joined is None:
            continue
        observer = prepared.get_submodule(str(joined.target))
        for place in set(_sources(prepared, join)):
            if place not in join.all_input_nodes or prepared.get_submodule(str(place.target)) is observer:
                continue
            name = f"{place.target}_for_{join.name}"
            prepared.add_submodule(name, observer)
            with prepared.graph.inserting_after(place):
                rounded = prepared.graph.call_module(name, (place,))
            join.replace_input_with(place, rounded)
    prepared.recompile()


def _groups(graph: fx.GraphModule, own_grid: set[object]) -> Iterable[_Group]:
    """Return the observers by the grid that their values share; what is of kinds `own_grid` has its own."""
    groups: dict[fx.Node, _Group] = {}
    for node in graph.graph.nodes:
        if not _is_observer(graph, node):
            continue
        maker = node.args[0]
        sharing = [place for place in _sources(graph, maker) if _share(graph, place, node)]
        if _kind(graph, maker) in own_grid:
            sharing = []
        elif maker.target in _JOINS:
            sharing = [place for place in sharing if not groups[place].kinds <= own_grid]
        group = _Group([node], set() if sharing else {_kind(graph, maker)})
        for other in {id(groups[place]): groups[place] for place in sharing}.values():
            group = _Group(other.places + group.places, other.kinds | group.kinds)
        groups |= dict.fromkeys(group.places, group)
    return {id(group): group for group in groups.values()}.values()


def _sources(graph: fx.GraphModule, maker: fx.Node) -> Iterator[fx.Node]:
    """Yield the observers of operands; of what is joined the nearest, for instance before a split."""
    for operand in maker.all_input_nodes:
        while maker.target in _JOINS and not _is_observer(graph, operand) and operand.all_input_nodes:
            operand = operand.all_input_nodes[0]
        if _is_observer(graph, operand):
            yield operand


def _share(graph: fx.GraphModule, first: fx.Node, second: fx.Node) -> bool:
    return graph.get_submodule(str(first.target)) is graph.get_submodule(str(second.target))


def _kind(graph: fx.GraphModule, node: fx.Node) -> object:
    if node.target in _ARITHMETIC and len(node.all_input_nodes) == 1 and len(node.args) == 2:
        return _WITH_NUMBER
    return type(graph.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def _is_observer(graph: fx.GraphModule, node: fx.Node) -> bool:
    layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer, quantization.ObserverBase | quantization.FakeQuantizeBase)
