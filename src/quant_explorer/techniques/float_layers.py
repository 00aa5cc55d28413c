"""Which layers of a model stay in float, by patterns of their names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Of a large model's layers, in a message; `inspect` shows all.
_LISTED = 20


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
    layers = _layers(model)
    near = dict.fromkeys(name for pattern in odd for name in _near(pattern, layers))
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(layers[:_LISTED]) + (f" and {len(layers) - _LISTED} more" * (len(layers) > _LISTED))
    return f"--float-layer {', '.join(odd)}: there is no such layer.{hint} Allowed: {shown}."


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


def _near(pattern: str, layers: Sequence[str]) -> list[str]:
    """Return names that are spelled most like a pattern, of layers or of what is around them."""
    names = dict.fromkeys(part for layer in layers for part in _around(layer))
    return difflib.get_close_matches(pattern.strip("*."), names, n=2, cutoff=0.6)


def _around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
