"""Lines of the user's own code that a message about a model can name."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_RETURN = re.compile(r"\s*return\b")
_NOT_OF_USERS = ("torch", "quant_explorer")


def line_of(error: Exception, module: nn.Module) -> str:
    """Name the last line of the model's own file that an error passed through."""
    files = {file for file, _, _ in _sources(module)}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f", at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def places_of(module: nn.Module, pattern: re.Pattern[str]) -> str:
    """Name the lines of the model's own code that a pattern is in."""
    found = [
        f"{file}:{number}: {line.strip()}"
        for file, start, lines in _sources(module)
        for number, line in enumerate(lines, start)
        if pattern.search(line.partition("#")[0])
    ]
    return f" (see {'; '.join(dict.fromkeys(found))})" if found else ""


def returns_of(module: nn.Module) -> str:
    """Name the last line of the model's own `forward` that returns something."""
    if type(module).__module__.partition(".")[0] in _NOT_OF_USERS:
        return ""
    try:
        lines, start = inspect.getsourcelines(type(module).forward)
    except (OSError, TypeError):
        return ""
    found = [(number, line.strip()) for number, line in enumerate(lines, start) if _RETURN.match(line)]
    if not found:
        return ""
    number, line = found[-1]
    return f" (see {inspect.getsourcefile(type(module))}:{number}: {line})"


def _sources(module: nn.Module) -> Iterator[tuple[str, int, list[str]]]:
    """Yield file, first line number and lines of the user's own classes in a model."""
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        if kind.__module__.partition(".")[0] in _NOT_OF_USERS:
            continue
        try:
            lines, start = inspect.getsourcelines(kind)
            file = inspect.getsourcefile(kind)
        except (OSError, TypeError):
            continue
        if file:
            yield file, start, lines
