"""Terminal: progress bars, tables, messages, exit codes."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from quant_explorer.core.errors import QuantExplorerError, explain
from quant_explorer.core.progress import Task
from quant_explorer.core.units import format_duration, show_controls

_UNFOLDED = 250


class SafeConsole(Console):
    """A console that shows the control characters in what it prints, and sends none but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the segments of something to print."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(show_controls(segment.text), segment.style)


# Figures go to standard output, everything about how they come about to standard error.
# Where nobody looks at a terminal, lines are as long as they need to be.
output = SafeConsole() if sys.stdout.isatty() else SafeConsole(width=_UNFOLDED)
messages = SafeConsole(stderr=True)

EXIT_FAILED = 1
EXIT_NOTHING_WITHIN = 4
EXIT_INTERRUPTED = 130


@dataclass
class Verbosity:
    """-1 quiet, 0 normal, 1 verbose: set by the options of the command being run."""

    level: int = 0


verbosity = Verbosity()


class ConsoleProgress:
    """Bars on a terminal; elsewhere a line every half minute, and at the end of each task."""

    def __init__(self, every_s: float = 30.0) -> None:
        self._lines = _Lines(every_s)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=messages,
            transient=True,
            # Drawing wakes this process while variants are timed.
            refresh_per_second=1,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @contextlib.contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Task]:
        """Open a bar of `total` units, or one that only moves when `total` is None."""
        if verbosity.level < 0:
            yield _Bar(None, TaskID(0))
            return
        if not messages.is_terminal:
            with self._lines.following(label, total) as bar:
                yield bar
            messages.print(f"{label}: done {bar.note}".rstrip(), highlight=False, markup=False)
            return
        if not self._bars.tasks:
            self._bars.start()
        identifier = self._bars.add_task(label, total=total, note="")
        try:
            yield _Bar(self._bars, identifier)
        finally:
            self._bars.remove_task(identifier)
            if not self._bars.tasks:
                self._bars.stop()

    def say(self, message: str) -> None:
        """Print one line."""
        if verbosity.level >= 0:
            messages.print(message, highlight=False, markup=False, soft_wrap=True)


class _Line:
    """One task where there is no terminal."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total, self._began = label, total, time.monotonic()
        self._done, self.note = 0, ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._done += amount
        self.note = note or self.note

    def describe(self) -> str:
        """Return what it is, how far it is, and how long it will take at this pace."""
        if not self._total:
            return " ".join(filter(None, (self._label, self.note)))
        left = ""
        if 0 < self._done < self._total:
            taken = time.monotonic() - self._began
            left = f", about {format_duration(taken / self._done * (self._total - self._done))} left"
        return " ".join(filter(None, (f"{self._label}: {self._done} of {self._total}{left}", self.note)))


class _Lines:
    """Prints how far the open tasks are, every so many seconds, as long as there are any."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._open: list[_Line] = []

    @contextlib.contextmanager
    def following(self, label: str, total: int | None) -> Iterator[_Line]:
        line = _Line(label, total)
        self._open.append(line)
        ended = threading.Event()
        if len(self._open) == 1:
            threading.Thread(target=self._print_until, args=(ended,), daemon=True).start()
        try:
            yield line
        finally:
            ended.set()
            self._open.remove(line)

    def _print_until(self, ended: threading.Event) -> None:
        while not ended.wait(self._every_s):
            text = "; ".join(line.describe() for line in tuple(self._open))
            messages.print(text, highlight=False, markup=False, soft_wrap=True)


class _Bar:
    def __init__(self, bars: Progress | None, identifier: TaskID) -> None:
        self._bars, self._identifier = bars, identifier
        self.note = ""

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.note = note or self.note
        if self._bars is not None:
            self._bars.update(self._identifier, advance=amount, note=self.note)


@contextlib.contextmanager
def divert_libraries(log: Path) -> Iterator[None]:
    """Send what libraries print, in C++ too, to the file `log`; our own consoles keep the terminal.

    With -v nothing is diverted.
    """
    if verbosity.level > 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        stack.callback(os.close, target)
        for console, stream in ((output, sys.stdout), (messages, sys.stderr)):
            if _descriptor(stream) is not None:
                _flush(stream)
                stack.enter_context(_divert(console, stream, target))
        yield


@contextlib.contextmanager
def _divert(console: Console, stream: TextIO, target: int) -> Iterator[None]:
    terminal = os.dup(stream.fileno())
    own = os.fdopen(terminal, "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
    console.file = own
    os.dup2(target, stream.fileno())
    try:
        yield
    finally:
        _flush(stream)
        os.dup2(terminal, stream.fileno())
        # Rich's own default: whatever Python's stream is at the time.
        console.file = None  # type: ignore[assignment]
        # Where nobody reads any more (`| head`), the writing itself has raised it.
        with contextlib.suppress(BrokenPipeError):
            own.close()


def _flush(stream: TextIO) -> None:
    # On a full disk, the record that matters says so.
    with contextlib.suppress(OSError):
        stream.flush()
    # What C and C++ have printed is in a buffer of their own, which would be written when the program ends.
    ctypes.CDLL(None).fflush(None)


def _descriptor(stream: TextIO) -> int | None:
    # Where Python's stream was replaced (in a test, in a notebook), there is nothing to divert.
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def run_command(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    ARCHITECTURE.md has the table of exit codes. A traceback is shown for bugs, and for other errors
    only with -v.
    """
    # Warnings of the libraries go to the run's log, not between the user's tables.
    logging.captureWarnings(True)
    # Python would drop them; they say what the next version of a library will not do any more.
    if not sys.warnoptions:
        warnings.simplefilter("default", DeprecationWarning)
    try:
        code = command.main(list(arguments), prog_name="quant-explorer", standalone_mode=False)
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except QuantExplorerError as error:
        if verbosity.level > 0:
            traceback.print_exc()
        messages.print(f"[bold red]error:[/] {_escape(error)}", highlight=False, soft_wrap=True)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    messages.print("interrupted; what was recorded is kept, and the same command goes on from there")
    return EXIT_INTERRUPTED


def _escape(error: Exception) -> str:
    from rich.markup import escape

    return escape(explain(error))
