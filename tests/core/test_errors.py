from __future__ import annotations

import inspect
from urllib.error import URLError

import pytest

from quant_explorer.core import errors
from quant_explorer.core.errors import (
    QuantExplorerError,
    RunBusyError,
    UnsupportedError,
    WorkerDiedError,
    WorkerError,
    explain,
)

RAISED = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, Exception)]


@pytest.mark.parametrize("error", RAISED)
def test_every_error_is_of_one_tree_and_fails_the_command(error: type[Exception]) -> None:
    assert issubclass(error, QuantExplorerError)
    assert error.exit_code in {2, 3}
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnsupportedError("needs AVX2"), "needs AVX2"),
        (ValueError("not a number"), "ValueError: not a number"),
        (KeyError("101"), "KeyError: there is no '101'"),
        (KeyError(101), "KeyError: there is no 101"),
        (KeyError("no layer of this name"), "KeyError: no layer of this name"),
        (KeyError(), "KeyError without a message"),
        (AssertionError(), "AssertionError without a message"),
        (RuntimeError(" \n"), "RuntimeError without a message"),
        (ValueError(()), "ValueError without a message"),
        (UnsupportedError(), "UnsupportedError without a message"),
        (ValueError("(101)"), "ValueError without a message (only 101)"),
        (ValueError(object()), "ValueError without a message (only <object>)"),
        (RuntimeError("no kernel for", 8), "RuntimeError: no kernel for 8"),
        (SystemExit(3), "SystemExit without a message (only 3)"),
        (OSError(2, "No such file", "a"), "No such file: a"),
        (URLError(OSError(-2, "Name not known")), "Name not known"),
    ],
)
def test_what_an_exception_says_can_stand_in_a_sentence(error: BaseException, expected: str) -> None:
    assert explain(error) == expected


def test_a_busy_run_folder_is_distinguished_from_bad_input() -> None:
    assert RunBusyError.exit_code != QuantExplorerError.exit_code


def test_a_dead_worker_is_a_failed_worker() -> None:
    assert issubclass(WorkerDiedError, WorkerError)
    assert len(RAISED) > 10
