"""Observed values that only clipping activations read: a grid wider than what these let through is wasted.

PyTorch and ExecuTorch join no activation but ReLU to a convolution, and round what is before a ReLU6. Sums
from -54 to 100 leave 10 of 255 steps to its 0 to 6.
Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, section 2.4: a clamp is part of the rescaling to 8 bits.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import fx, nn
from torch._ops import OpOverload


@dataclass(frozen=True)
class _Interval:
    """All that is below `low` becomes the same value, and all that is above `high`."""

    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def around(cls, intervals: Iterable[_Interval]) -> _Interval:
        lows, highs = zip(*((interval.low, interval.high) for interval in intervals), strict=True)
        return cls(min(lows), max(highs))

    def clip(self, layer: nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return what the observer `layer` sees instead, called as a hook before it."""
        return args[0].clamp(self.low, self.high)


_WHOLE: Final = _Interval()
_FIXED: Final = {
    "relu": _Interval(low=0.0),
    "relu6": _Interval(0.0, 6.0),
    "hardswish": _Interval(low=-3.0),
    "hardsigmoid": _Interval(-3.0, 3.0),
}
# Names of the lower and of the upper bound, and what they are if they are not given.
_BOUNDED: Final = {
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "clamp": {"min": -math.inf, "max": math.inf},
}


def narrow_observers(prepared: fx.GraphModule) -> None:
    """Let observers of a graph, prepared by FX or PT2E, see values as the activations that read them do.

    It computes the same, and the grids are as wide as what is read. Values with another reader keep theirs.
    """
    places: defaultdict[nn.Module, list[fx.Node]] = defaultdict(list)
    for node in prepared.graph.nodes:
        observer = _observer(prepared, node)
        if observer is not None and not _keeps_grid(prepared, node, observer):
            places[observer].append(node)
    for observer, nodes in places.items():
        interval = _Interval.around(_needed(prepared, node) for node in nodes)
        if interval != _WHOLE:
            observer.register_forward_pre_hook(interval.clip)


def _observer(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return layer if hasattr(layer, "calculate_qparams") else None


def _keeps_grid(graph: fx.GraphModule, node: fx.Node, observer: nn.Module) -> bool:
    """Say whether what is observed at `node` is made of values that `observer` sees already, as by a pool.

    An operator that keeps the grid of its operand gives nothing beyond the operand.
    """
    maker = node.args[0]
    sources = maker.all_input_nodes if isinstance(maker, fx.Node) else []
    return any(_observer(graph, source) is observer for source in sources)


def _needed(graph: fx.GraphModule, node: fx.Node) -> _Interval:
    """Return what is read of the values that an observer sees at `node`."""
    if not node.users:
        return _WHOLE
    return _Interval.around(_clipping(graph, reader) for reader in node.users)


def _clipping(graph: fx.GraphModule, node: fx.Node) -> _Interval:
    """Return what an operator lets through of its first operand: all of it, where it does not clip."""
    layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    name = _name(node.target if layer is None else layer)
    if name in _FIXED:
        return _FIXED[name]
    if name not in _BOUNDED:
        return _WHOLE
    bounds = _BOUNDED[name]
    called = dict(zip(bounds, node.args[1:], strict=False)) | dict(node.kwargs)
    given: Mapping[str, object] = called if layer is None else vars(layer)
    limits = [default if given.get(bound) is None else given[bound] for bound, default in bounds.items()]
    numbers = [float(limit) for limit in limits if isinstance(limit, int | float)]
    return _Interval(*numbers) if len(numbers) == len(limits) else _WHOLE


def _name(target: Callable[..., object] | nn.Module | str) -> str:
    """Return the name of a function, operator, method or layer of PyTorch, one for all of its kinds."""
    if isinstance(target, nn.Module):
        kind = type(target)
        return kind.__name__.lower() if kind.__module__.startswith("torch.nn.") else ""
    if isinstance(target, OpOverload):
        target = target.overloadpacket
    name = target if isinstance(target, str) else str(target.__name__)
    return name.removesuffix("_")
