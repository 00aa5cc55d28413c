"""Progress of long work. Only the command line draws; everything else reports through this."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


class Task(Protocol):
    """A progress bar of work that has begun."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Move the bar by `amount`; `note` replaces the text behind it (loss, accuracy, ...)."""


class Progress(Protocol):
    """What long work reports to: it opens a bar for each task, and takes messages."""

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Task]:
        """Open a bar of `total` units, or one that only moves when `total` is None."""
        ...

    def say(self, message: str) -> None:
        """Report one line of what was decided or found."""


@dataclass(frozen=True)
class _Silence:
    def advance(self, amount: int = 1, note: str = "") -> None:
        """Ignore progress."""


@dataclass(frozen=True)
class Silent:
    """A Progress that shows nothing, for tests and for use as a library."""

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Task]:
        """Yield a task that is not shown."""
        yield _Silence()

    def say(self, message: str) -> None:
        """Ignore the message."""
