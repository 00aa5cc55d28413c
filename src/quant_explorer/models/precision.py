"""The precision that a model computes in, from the operators that PyTorch dispatches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def watch_precision() -> Iterator[set[str]]:
    """Give the types of 16 bits and fewer that operators inside of the block return, by name."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    lower: set[str] = set()

    class Watching(TorchDispatchMode):
        supports_higher_order_operators = True

        def __torch_dispatch__(
            self,
            func: torch._ops.OperatorBase,
            types: Sequence[type],
            args: tuple[object, ...] = (),
            kwargs: dict[str, object] | None = None,
        ) -> object:
            output: object = func(*args, **(kwargs or {}))
            lower.update(
                str(value.dtype)
                for value in tree_iter(output)
                if isinstance(value, torch.Tensor) and value.is_floating_point() and value.itemsize < 4
            )
            return output

    with Watching():  # type: ignore[no-untyped-call]
        yield lower
