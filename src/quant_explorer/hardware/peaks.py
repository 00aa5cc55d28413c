"""Peaks of this machine, measured in a fresh process that keeps to the cores it is given.

The process is new because threads that this one has started, and what its libraries were told, would
decide the figures. Nothing else may compute meanwhile; a busy machine shows lower peaks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO

from quant_explorer.core.errors import WorkerDiedError
from quant_explorer.core.progress import Progress
from quant_explorer.core.roofline import BANDWIDTH, Peaks
from quant_explorer.hardware.probe import WHAT, Effort, Figure, probe

_PROGRAM = "from quant_explorer.hardware import peaks; peaks.main()"
_PR_SET_PDEATHSIG = 1


def measure_peaks(
    cores: Sequence[int],
    environment: Mapping[str, str],
    progress: Progress,
    effort: Effort | None = None,
) -> Peaks:
    """Return bandwidth and the peak of each precision with one thread on each of `cores`.

    `environment` holds the settings of the thread pools. A precision without a kernel is in `reasons`.
    This takes about 15 s. Raises WorkerDiedError when the process ends before it has answered.
    """
    with (
        tempfile.TemporaryFile() as said,
        _started(environment, said) as (process, connection),
        progress.task("Measuring peaks", len(WHAT)) as task,
    ):
        figures = []
        try:
            connection.send((tuple(cores), effort or Effort()))
            for _ in WHAT:
                figures.append(_receive(connection))
                task.advance(note=figures[-1].what)
        except (EOFError, ConnectionError) as error:
            raise WorkerDiedError(_describe_death(process.wait(), said)) from error
    return _peaks(len(cores), figures)


@contextlib.contextmanager
def _started(
    environment: Mapping[str, str], said: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    child_end, own_end = Pipe()
    process = subprocess.Popen(
        # -P: a random.py in the user's folder is not the standard library's.
        [sys.executable, "-P", "-c", _PROGRAM, str(child_end.fileno())],
        pass_fds=[child_end.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        env={**os.environ, **environment},
        # Ctrl-C belongs to this process, which ends the other.
        start_new_session=True,
    )
    child_end.close()
    try:
        yield process, own_end
    finally:
        own_end.close()
        process.kill()
        process.wait()


def _receive(connection: Connection) -> Figure:
    figure: Figure = connection.recv()
    return figure


def _describe_death(code: int, said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = f": {lines[-1]}" if lines else ""
    return f"the process that measures peaks died ({how}){last}"


def _peaks(threads: int, figures: Sequence[Figure]) -> Peaks:
    found = {figure.what: figure.value for figure in figures if figure.value is not None}
    return Peaks(
        threads=threads,
        gb_per_s=found.pop(BANDWIDTH),
        gmacs_per_s=found,
        kernels={figure.what: figure.kernel for figure in figures if figure.kernel},
        reasons={figure.what: figure.reason for figure in figures if figure.value is None},
    )


def main() -> None:
    """Send the figures over the pipe whose file descriptor is the first argument."""
    if sys.platform == "linux":
        # Otherwise it would outlive a parent that was killed.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = Connection(int(sys.argv[1]))
    cores, effort = connection.recv()
    if hasattr(os, "sched_setaffinity"):
        # Before PyTorch is imported, so that all its threads are born on these cores.
        os.sched_setaffinity(0, cores)
    import torch

    torch.set_num_threads(len(cores))
    for figure in probe(effort):
        connection.send(figure)
