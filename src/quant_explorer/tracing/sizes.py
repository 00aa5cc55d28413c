"""Sizes given one by one, of which torch.fx has a stand-in for the number of images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final
from unittest import mock

import torch
from torch import fx

# Functions of a module or class with the arguments before the sizes.
_TAKING: Final = (
    *((torch, name, 0) for name in ("zeros", "ones", "empty")),
    *((torch.Tensor, name, 1) for name in ("expand", "repeat", "view", "reshape")),
)


@contextmanager
def joined_sizes() -> Iterator[Callable[[fx.Graph], None]]:
    """Hand sizes on as a tuple where one is a stand-in, which PyTorch takes there only.

    So `torch.zeros(x.shape[0], 1)` and `fixed.expand(x.shape[0], -1)` can be traced. What is given puts
    PyTorch's own functions and methods into a graph that was traced meanwhile.
    """
    # What torch.fx takes for a method is looked up once, and must not be what is put there now.
    torch.overrides.is_tensor_method_or_property(torch.Tensor.expand)
    joining: dict[object, tuple[object, str, Callable[..., object]]] = {}

    def restore(graph: fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "call_function" and node.target in joining:
                owner, name, function = joining[node.target]
                node.op, node.target = (
                    ("call_method", name) if owner is torch.Tensor else ("call_function", function)
                )

    with ExitStack() as stack:
        for owner, name, before in _TAKING:
            function: Callable[..., object] = getattr(owner, name)
            joins = _join(function, before)
            joining[joins] = owner, name, function
            stack.enter_context(mock.patch.object(owner, name, joins))
        yield restore


def _join(function: Callable[..., object], before: int) -> Callable[..., object]:
    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        sizes = args[before:]
        if any(isinstance(size, fx.Proxy) for size in sizes):
            args = (*args[:before], sizes)
        return function(*args, **kwargs)

    return call
