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
def joined_sizes() -> Iterator[None]:
    """Hand sizes on as a tuple where one is a stand-in, which PyTorch takes there only.

    So `torch.zeros(x.shape[0], 1)` and `fixed.expand(x.shape[0], -1)` can be traced.
    """
    # What torch.fx takes for a method is looked up once, and must not be what is put there now.
    torch.overrides.is_tensor_method_or_property(torch.Tensor.expand)
    with ExitStack() as stack:
        for owner, name, before in _TAKING:
            stack.enter_context(mock.patch.object(owner, name, _join(getattr(owner, name), before)))
        yield


def _join(function: Callable[..., object], before: int) -> Callable[..., object]:
    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        sizes = args[before:]
        if any(isinstance(size, fx.Proxy) for size in sizes):
            args = (*args[:before], sizes)
        return function(*args, **kwargs)

    return call
