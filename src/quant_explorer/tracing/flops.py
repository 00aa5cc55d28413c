"""Floating-point operations of operators that `torch.utils.flop_counter` has no formula for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Final

import torch

Shape = Sequence[int]


def _recurrent(values: Shape, of_values: Shape, of_states: Shape, *_: object, **__: object) -> int:
    """One layer and direction of an LSTM over `values` (length, n, inputs), with its two weights."""
    return 2 * prod(values[:-1]) * (prod(of_values) + prod(of_states))


def _trilinear(_: Shape, weight: Shape, *__: object, out_shape: Shape, **___: object) -> int:
    """What nn.Bilinear calls: the weight (outputs, first, second) meets every image."""
    return 2 * out_shape[0] * prod(weight)


# What FlopCounterMode takes as `custom_mapping`: shapes in place of tensors.
FORMULAS: Final[dict[object, Callable[..., int]]] = {
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.aten._trilinear: _trilinear,
}
