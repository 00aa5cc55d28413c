"""Everything quant-explorer raises on purpose.

Each message says what was wrong, where, and what is allowed. Only `quant_explorer.cli` turns one
into a line on the terminal and an exit code; a bug is not one of these and propagates.
"""

import re


class QuantExplorerError(Exception):
    """Base of all errors a user can act on. `exit_code` is what the command line returns for it."""

    exit_code = 2


class UnknownNameError(QuantExplorerError):
    """A name that no registry holds; the message lists what is allowed and the nearest."""


class SettingsError(QuantExplorerError):
    """An option outside its range, or one that contradicts the run folder it is used on."""


class DataError(QuantExplorerError):
    """A data set that is missing, unreadable, or not a classification data set."""


class ModelError(QuantExplorerError):
    """A model that cannot be loaded, or weights that do not fit it."""


class TrainingError(QuantExplorerError):
    """Training that cannot go on, for instance because the loss is no longer finite."""


class StudyError(QuantExplorerError):
    """A study, manifest or results file that cannot be read, or is of another schema version."""


class RunBusyError(QuantExplorerError):
    """Another process works on the same run folder."""

    exit_code = 3


class StorageError(QuantExplorerError):
    """The disk is full or a path cannot be written."""


class UnsupportedError(QuantExplorerError):
    """What was asked cannot be done by this technique or runtime; the message is the reason."""


class BuildError(QuantExplorerError):
    """A variant could not be built, or what was built is not what its name says."""


class FidelityError(BuildError):
    """Files compute something else than the model they were made from."""


class WorkerError(QuantExplorerError):
    """A variant's worker process reported a failure."""


class WorkerDiedError(WorkerError):
    """A variant's worker process ended by itself (a crash, a kill, out of memory)."""


class WorkerTimeoutError(WorkerError):
    """A variant's worker process did not answer in time and was ended."""


def explain(error: BaseException) -> str:
    """Return what an exception says, for a place inside of a sentence.

    Ours say it in words, and the system says it of a file. Others may say nothing, a number, or what Python
    shows of an object, so their text comes with the type, and is called no message where it has no words.
    """
    kind, text = type(error).__name__, _text(error)
    if isinstance(error, QuantExplorerError) and text:
        return text
    # urllib puts what the system says inside of an error of its own.
    reason: object = getattr(error, "reason", None)
    if isinstance(error, OSError) and isinstance(reason, BaseException):
        return explain(reason)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, KeyError) and error.args and not re.search(r"\s", text):
        return f"{kind}: there is no {error.args[0]!r}"
    if _WORD.search(_OBJECT.sub("", text)):
        return f"{kind}: {text}"
    shown = text.strip("()[]{}'\" ,:")
    return f"{kind} without a message" + (f" (only {shown})" if shown else "")


_WORD = re.compile(r"[^\W\d_]{2,}")
# What Python shows of an object that has no text of its own.
_OBJECT = re.compile(r"<[^<>]*>")
_ADDRESS = re.compile(r" (object )?at 0x[0-9a-f]+")


def _text(error: BaseException) -> str:
    text = str(error)
    if text == str(error.args) or isinstance(error, KeyError):
        # What Python shows of the arguments, instead of the arguments.
        text = " ".join(map(str, error.args))
    return _ADDRESS.sub("", text).strip()


def require_supported(reason: str | None) -> None:
    """Raise UnsupportedError with the reason, if there is one."""
    if reason is not None:
        raise UnsupportedError(reason)
