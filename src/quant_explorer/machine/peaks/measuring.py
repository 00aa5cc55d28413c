"""Peaks of this machine, measured in a fresh process that keeps to the cores it is given.

The process is new because threads that this one has started, and how its libraries are configured, would
decide the figures. Nothing else may compute meanwhile; a busy machine shows lower peaks.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, cast

from quant_explorer.core.cost.roofline import BANDWIDTH, Peaks
from quant_explorer.core.errors import WorkerDiedError
from quant_explorer.core.progress import Progress
from quant_explorer.machine.channel import Channel
from quant_explorer.machine.peaks.probe import WHAT, Effort, MeasuredRoof, probe
from quant_explorer.machine.process import (
    connect_to_parent,
    describe_exit,
    keep_to,
    start_process,
    thread_environment,
)

_PROGRAM = "from quant_explorer.machine.peaks import measuring; measuring.main()"


def measure_peaks(cores: Sequence[int], progress: Progress, effort: Effort | None = None) -> Peaks:
    """Return bandwidth and the peak of each precision with one thread on each of `cores`.

    A precision without a kernel is in `reasons`.
    This takes about 15 s. Raises WorkerError when the process cannot be started, WorkerDiedError when it ends
    before it has answered.
    """
    with (
        tempfile.TemporaryFile() as log,
        _started(len(cores), log) as (process, channel),
        progress.task("Measuring peaks", len(WHAT)) as task,
    ):
        figures = []
        try:
            channel.send((tuple(cores), effort or Effort()))
            for _ in WHAT:
                figures.append(_receive(channel))
                task.advance(note=figures[-1].what)
        except (EOFError, ConnectionError) as error:
            raise WorkerDiedError(_describe_death(process.wait(), log)) from error
    return _peaks(len(cores), figures)


@contextlib.contextmanager
def _started(threads: int, log: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], Channel]]:
    process, channel = start_process(_PROGRAM, thread_environment(threads), log)
    try:
        yield process, channel
    finally:
        channel.close()
        process.kill()
        process.wait()


def _receive(channel: Channel) -> MeasuredRoof:
    figure = channel.receive()
    assert isinstance(figure, MeasuredRoof)
    return figure


def _describe_death(code: int, log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return f"the process that measures peaks died ({describe_exit(code)}){last}"


def _peaks(threads: int, figures: Sequence[MeasuredRoof]) -> Peaks:
    found = {figure.what: figure.value for figure in figures if figure.value is not None}
    return Peaks(
        threads=threads,
        gb_per_s=found.pop(BANDWIDTH),
        gmacs_per_s=found,
        kernels={figure.what: figure.kernel for figure in figures if figure.kernel},
        reasons={figure.what: figure.reason for figure in figures if figure.value is None},
    )


def main() -> None:
    """Send the figures to the parent."""
    channel = connect_to_parent()
    cores, effort = cast(tuple[tuple[int, ...], Effort], channel.receive())
    # Before PyTorch is imported, so that all its threads are born on these cores.
    keep_to(cores)
    import torch

    torch.set_num_threads(len(cores))
    for figure in probe(effort):
        channel.send(figure)
