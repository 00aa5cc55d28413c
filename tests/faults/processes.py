"""For the tests of this room: finding processes that were left behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

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
def nothing_left() -> Iterator[str]:
    """Yield a value for the variable MARK; fail when a process that was started with it does not end."""
    mark = uuid.uuid4().hex
    yield mark
    for process in _marked(mark):
        wait_until_gone(process)


def _marked(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
