"""What a vendor's quantizer raises for a graph that it was not written for, as a reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.tracing.reasons import in_brackets

_log = logging.getLogger(__name__)
# What NumPy says of a range that has no 2,048 steps.
_NO_HISTOGRAM = "Too many bins for data range"


@contextmanager
def explain_failure(quantizer: str, *own: type[Exception]) -> Iterator[None]:
    """Raise UnsupportedError for what `quantizer`, by its name, raises inside; `own` are its own errors."""
    known: tuple[type[Exception], ...] = (AssertionError, KeyError, RuntimeError, TypeError, ValueError)
    try:
        yield
    except known + own as error:
        _log.info("%s: %s", quantizer, error)
        if str(error).startswith(_NO_HISTOGRAM):
            raise UnsupportedError(
                "values inside the model are too large, too small or too much alike for a histogram of them; "
                "keep the layers that compute them in float, or choose another runtime"
            ) from error
        raise UnsupportedError(
            f"{quantizer} fails on the exported graph{in_brackets(error)}; keep the layers it is about in "
            "float, or choose another runtime"
        ) from error
