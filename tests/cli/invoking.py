"""How tests call the command line: the installed script in a process of its own, or its entry in this one."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import TracebackType

import psutil
import pytest

from quant_explorer.cli.app import app
from quant_explorer.cli.console import run_command, verbosity

SCRIPT = Path(sys.executable).parent / "quant-explorer"
# Only so that a broken program ends the test at all; nothing is judged by it.
PATIENCE_S = 900.0
# The least that every part can run on.
SMALL = ("--train-subset", "200", "--test-subset", "100")
# Building for every runtime takes minutes.
EAGER = ("--runtime", "eager")
# A worker of eager imports PyTorch, for 2 s; one of this runtime takes a tenth.
ONNX = ("--runtime", "onnxruntime")
QUICK = ("--rounds", "2", "--time-limit", "0.5", "--batch-sizes", "1,2")


@dataclass(frozen=True)
class Place:
    """A working directory, and a cache that its processes share."""

    folder: Path
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user who stands in `folder`."""
        return os.environ | {"XDG_CACHE_HOME": str(self.cache), "COLUMNS": "200"}

    def call(
        self, *arguments: str | Path, limit_file_bytes: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed script to its end; a disk may be simulated that is full at some file size."""
        return subprocess.run(
            [str(SCRIPT), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            preexec_fn=lambda: _prepare(limit_file_bytes),
            check=False,
        )

    def start(self, *arguments: str | Path) -> Running:
        """Start the installed script as in a terminal (bars are drawn)."""
        return Running([str(SCRIPT), *map(str, arguments)], self.folder, self.environment)


Invoke = Callable[..., tuple[int, str]]


@contextmanager
def called_here(place: Place) -> Iterator[Invoke]:
    """Yield what calls the command line in this process: it returns the exit code and what was printed."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        verbosity.level = 0
        words = [str(argument) for argument in arguments]
        patch.setattr(sys, "argv", ["quant-explorer", *words])
        with redirect_stdout(StringIO()) as figures, redirect_stderr(StringIO()) as messages:
            code = run_command(app, words)
        return code, figures.getvalue() + messages.getvalue()

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.folder)
        for name, value in place.environment.items():
            if os.environ.get(name) != value:
                patch.setenv(name, value)
        yield call
    verbosity.level = 0
    logging.captureWarnings(False)


def _prepare(most_bytes: int | None = None) -> None:
    import resource

    # Where the tests run in the background, a shell has told them, and so their children, to ignore it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


class Running:
    """A command that is still going on. Leaving the context ends it and whatever it started."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        with self._output.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, "FORCE_COLOR": "1"},
                stdout=stream,
                stderr=stream,
                preexec_fn=_prepare,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        workers = self.workers()
        self._process.kill()
        self._process.wait()
        for worker in workers:
            if worker.is_running():
                worker.kill()

    @property
    def output(self) -> str:
        """What it has written to the terminal so far, without colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._output.read_text(errors="replace"))

    def workers(self) -> list[psutil.Process]:
        """The processes it has started."""
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Return once `reached` holds; fails when the command ends before that."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            assert self._process.poll() is None, f"ended before it was interrupted: {self.output}"
            assert time.monotonic() < deadline, f"never came that far: {self.output}"
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code; fails when a process it started is left behind."""
        workers = self.workers()
        self._process.send_signal(number)
        code = self._process.wait(PATIENCE_S)
        _, left = psutil.wait_procs(workers, timeout=PATIENCE_S)
        assert not left
        return code

    def wait(self) -> int:
        """Return the exit code."""
        return self._process.wait(PATIENCE_S)
