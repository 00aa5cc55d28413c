"""For the tests of this room: finding processes that were left behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

MARK = "QUANT_EXPLORER_TEST_MARK"
# Only so that a broken program ends the test at all; nothing is judged by it.
PATIENCE_S = 300.0


def gone(process: int) -> bool:
    """Whether a process has ended, be it waited for or not."""
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(process: int) -> None:
    """Fail when a process does not end."""
    deadline = time.monotonic() + PATIENCE_S
    while not gone(process):
        assert time.monotonic() < deadline, f"process {process} is still there"
        time.sleep(0.01)


@contextmanager
def nothing_left(environment: pytest.MonkeyPatch) -> Iterator[str]:
    """Mark all processes that are started inside, and fail when one of them does not end."""
    mark = uuid.uuid4().hex
    environment.setenv(MARK, mark)
    yield mark
    environment.delenv(MARK)
    for process in marked(mark):
        wait_until_gone(process)


def marked(mark: str) -> list[int]:
    """The processes that were started with a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
