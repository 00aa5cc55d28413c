"""Which values stay in float because a division, a logarithm or a root enlarges their rounding error.

The rule of the runtimes (`runtimes/onnx_graph/sensitive.py`, `runtimes/torch_graph/sensitive.py`), on the
values that a simulation follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from quant_explorer.pipeline.building.simulation.following import Value

_QUOTIENTS = ("div", "div_")
_STEEP = (
    *("reciprocal", "rsqrt", "rsqrt_", "sqrt", "sqrt_"),
    *("log", "log_", "log2", "log10", "log1p", "logsumexp"),
)
_POWERS = ("pow", "pow_")
# Between the last layers and these.
_ARITHMETIC = (
    *("add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "pow", "pow_", "sqrt", "sqrt_"),
    *("exp", "exp_", "log", "log_", "abs", "clamp", "clamp_", "clamp_min", "sum", "mean", "avg_pool2d"),
    *("_adaptive_avg_pool2d", "linalg_vector_norm", "norm", "bmm"),
)


@dataclass(frozen=True)
class Call:
    """What an operator read: the values that depend on images, and whether small ones matter to it."""

    operands: tuple[Value, ...]
    steep: bool


def call_of(name: str, args: Sequence[object], operands: Sequence[Value]) -> Call:
    """Describe a call of the operator `name`; `operands` are the values of its tensors, in order."""
    steep = (
        name in _STEEP
        or (name in _QUOTIENTS and len(operands) > 1 and not operands[1].constant)
        or (name in _POWERS and not isinstance(args[1], int))
    )
    return Call(tuple(value for value in operands if not value.constant), steep)


def find_unrounded(calls: Mapping[Value, Call]) -> frozenset[Value]:
    """Return the values that arithmetic makes for divisions, logarithms and roots alone."""
    steep = {value for value, call in calls.items() if call.steep}
    waiting = [operand for value in steep for operand in calls[value].operands]
    found: set[Value] = set()
    while waiting:
        value = waiting.pop()
        if value in calls and value not in found and value.operator in _ARITHMETIC:
            found.add(value)
            waiting += calls[value].operands
    # What is read elsewhere, too, has a grid there.
    while shared := found & _read_outside(calls, found | steep):
        found -= shared
    return frozenset(found)


def _read_outside(calls: Mapping[Value, Call], inside: AbstractSet[Value]) -> set[Value]:
    return {operand for value, call in calls.items() if value not in inside for operand in call.operands}
