"""Which layers of a model stay in float, by patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def find_float_layers(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the layers with weights whose qualified name, or that of a module around it, a pattern matches.

    Patterns are those of the shell: `*` stands for any characters, dots among them.
    """
    return tuple(
        name
        for name in _layers(model)
        if any(fnmatchcase(part, pattern) for part in _around(name) for pattern in patterns)
    )


def explain_unmatched(model: nn.Module, patterns: Sequence[str]) -> str | None:
    """Return which patterns match no layer, and what the layers are called; None when all match."""
    odd = [pattern for pattern in patterns if not find_float_layers(model, [pattern])]
    if not odd:
        return None
    return f"--float-layer {', '.join(odd)}: there is no such layer. Allowed: {', '.join(_layers(model))}."


def split_patterns(text: str) -> list[str]:
    """Return the patterns of a text with commas between them."""
    return [part for part in text.split(",") if part]


def _layers(model: nn.Module) -> list[str]:
    """Return the names of what multiplies: modules whose own weight has two dimensions at least."""
    return [
        name
        for name, module in model.named_modules()
        if name and any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
    ]


def _around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
