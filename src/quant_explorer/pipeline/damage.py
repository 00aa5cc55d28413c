"""A file of the run folder that cannot be read any more: which it is, and what to do."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from quant_explorer.core.errors import ModelError, StudyError, explain

# What the readers of NumPy, PyTorch, msgspec and our own raise for a file that is cut or overwritten.
_UNREADABLE = (
    ModelError,
    msgspec.DecodeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
)


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn the errors of reading `path`, which can be made again, to a StudyError that says how."""
    try:
        yield
    except _UNREADABLE as error:
        reason = explain(error).removeprefix(f"{path}: ")
        raise StudyError(
            f"{path}: missing or changed since it was written ({reason}); delete it, and the same command "
            "makes it again"
        ) from error
