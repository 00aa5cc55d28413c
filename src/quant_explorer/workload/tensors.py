"""The tensors in whatever a module takes or returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested sequences and mappings, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for nested in value.values():
            yield from tensors_in(nested)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for nested in value:
            yield from tensors_in(nested)
