"""Why PyTorch cannot take a model: what its tracers raise becomes a reason that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from quant_explorer.core.errors import UnsupportedError, explain

# For `explain_refusal`: what cannot be done, and what to do.
TRACING: Final = (
    "the model cannot be traced to a graph by torch.fx",
    "control flow that depends on the input must be moved out of forward()",
)
CAPTURING: Final = (
    "the model cannot be captured by torch.export",
    "control flow that depends on the input must be moved out of forward()",
)
QUANTIZE_ADVICE: Final = "keep the layers it is about in float, or write them otherwise"
# Tracing calls the user's own forward() with stand-ins for tensors, which fails in any of these.
Refusals = tuple[type[Exception], ...]
REFUSALS: Final[Refusals] = (AssertionError, AttributeError, RuntimeError, TypeError, ValueError)


@contextmanager
def explain_refusal(what: str, advice: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what PyTorch raises for a model it cannot take into UnsupportedError: `what` (reason); `advice`.

    `more` are errors of one tracer's own.
    """
    try:
        yield
    except REFUSALS + more as error:
        # What follows is the stack of PyTorch's own code.
        reason = explain(error).partition("\n")[0]
        raise UnsupportedError(f"{what} ({reason}){'; ' if advice else ''}{advice}") from error
