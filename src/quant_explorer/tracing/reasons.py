"""Why PyTorch cannot take a model: what its tracers raise becomes a reason that a person can act on."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch.fx.proxy import TraceError

import quant_explorer
from quant_explorer.core.errors import UnsupportedError

# For `explain_refusal`: what cannot be done, and what to do.
TRACING: Final = (
    "the model cannot be traced to a graph by torch.fx",
    "control flow that depends on the input must be moved out of forward()",
)
CAPTURING: Final = (
    "the model cannot be captured by torch.export",
    "control flow that depends on the input must be moved out of forward()",
)
TENSOR_ADVICE: Final = "compute it with tensors or move it out of forward()"
# Whose frames are not the user's code: these, and Python's own library.
_LIBRARIES: Final = tuple(f"{Path(str(package.__file__)).parent}/" for package in (torch, quant_explorer))
_STANDARD: Final = f"{Path(traceback.__file__).parent}/"
QUANTIZE_ADVICE: Final = "keep the layers it is about in float, or write them otherwise"
# Tracing calls the user's own forward() with stand-ins for tensors, which fails in any of these.
Refusals = tuple[type[Exception], ...]
_LONGEST_LINE: Final = 160
# Lines, addresses, files and calls of a library, mangled names, graphs, an error's class in front.
_DUMP: Final = re.compile(
    r"\n|0x[0-9a-f]{6}|site-packages|Traceback|\.(cpp|cc|h|py):\d+|\w::\w|__\w+__|GraphModule\(|<\w+ |"
    r"%\w+|\b\w+(Error|Exception|Iteration): |^\W*\w*\W*$"
)
_OPERATOR: Final = re.compile(r"\b((?:quantized|aten)(?:::|\.)\w+)")
_log = logging.getLogger(__name__)
REFUSALS: Final[Refusals] = (AssertionError, AttributeError, RuntimeError, TypeError, ValueError)


@contextmanager
def explain_refusal(what: str, advice: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what PyTorch raises for a model it cannot take into UnsupportedError: `what` (reason); `advice`.

    `more` are errors of one tracer's own.
    """
    try:
        yield
    except REFUSALS + more as error:
        _log.info("%s: %s", what, error)
        raise UnsupportedError(f"{what}{in_brackets(error)}{'; ' if advice else ''}{advice}") from error


def in_brackets(error: BaseException) -> str:
    """Return what a library says in its first line, with a space before it, for the end of a clause.

    Where that is no sentence for a person, it is the operator that it names, or nothing.
    """
    text = str(error).strip()
    first = text.partition("\n")[0].rstrip(" .")
    if first and len(first) <= _LONGEST_LINE and not is_dump(first):
        return f" ({first})"
    operator = _OPERATOR.search(text)
    return f" ({operator[1]})" if operator else ""


def is_dump(reason: str) -> bool:
    """Say whether a reason is a library's own words, and not a sentence for a person."""
    return _DUMP.search(reason) is not None


def explain_trace(error: BaseException) -> str:
    """Say what line of the user's code cannot be traced, and what to do."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(frame.filename) and frame.line]
    where = f"`{own[-1].line}` ({Path(own[-1].filename).name}, line {own[-1].lineno}): " if own else ""
    if isinstance(error, TraceError):
        return f"{where}{error}"
    # Or their number, as the size of a tensor made in forward().
    return f"{where}it needs values that only images give; {TENSOR_ADVICE}, where fixed tensors are buffers"


def _is_users(file: str) -> bool:
    standard = file.startswith(_STANDARD) and "site-packages" not in file
    return not standard and not file.startswith(_LIBRARIES)
