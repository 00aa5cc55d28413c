"""The only code that runs a variant: a fresh process that opens an artifact from its files alone.

The parent starts it with `subprocess`, never by fork, pinned to the measuring cores with
every runtime's thread settings in its environment, and blocks on a pipe for each answer.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar, cast

import numpy as np

from quant_explorer.core.contracts import Batch, Metric, Runtime, Session
from quant_explorer.core.errors import (
    UnsupportedError,
    WorkerDiedError,
    WorkerError,
    WorkerTimeoutError,
    explain,
)
from quant_explorer.core.measurement import EnergyBlock, Executed, Observation, PeakMemory
from quant_explorer.machine.channel import Channel
from quant_explorer.machine.counters import PackageCounters, find_packages
from quant_explorer.machine.memory import ResidentMemory
from quant_explorer.machine.process import (
    connect_to_parent,
    describe_exit,
    keep_to,
    start_process,
    thread_environment,
)
from quant_explorer.metrics import energy, latency, memory, observing
from quant_explorer.pipeline.worker.messages import (
    Answer,
    Hold,
    Inspect,
    Loading,
    MeasureEnergy,
    MeasureMemory,
    Observe,
    Open,
    Opened,
    Opening,
    Request,
    RequestFailure,
    Run,
    Time,
)

T = TypeVar("T")
R = TypeVar("R")

# Not `python -m`: requests are pickled under this module's own name, not `__main__`.
_PROGRAM = "from quant_explorer.pipeline.worker import process; process.main()"


def runtime_path(runtime: type[Runtime]) -> str:
    """Return where a fresh process imports a runtime from."""
    return f"{runtime.__module__}:{runtime.__qualname__}"


class Worker:
    """The parent's end of one worker process. Use it as a context manager: leaving ends the process."""

    def __init__(self, loading: Loading, *, log: Path, timeout_s: float) -> None:
        """Start the process; its standard output and error go to the file `log`.

        It loads its runtime at once; `assign` tells what it opens, which may not be there yet. Raises
        WorkerError when the system starts no further process.
        """
        self._timeout_s = timeout_s
        self._loaded = False
        self._opening: Opening | None = None
        self._log: IO[bytes] = log.open("ab")
        try:
            self._process, self._channel = start_process(
                _PROGRAM, thread_environment(len(loading.cores)), self._log
            )
        except WorkerError:
            self._log.close()
            raise
        # A process that is dead already is found so by the first question.
        with contextlib.suppress(ConnectionError):
            self._channel.send(loading)

    @property
    def pid(self) -> int:
        """Process number of the worker."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # First, which ends a question that another thread waits for.
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._channel.close()
        self._log.close()

    def assign(self, opening: Opening) -> None:
        """Tell what `open` opens."""
        self._opening = opening

    def open(self, batch: Batch) -> Opened:
        """Open the artifact and run its first call."""
        assert self._opening is not None
        return _expect(self._ask(Open(self._opening, batch)), Opened)

    def hold(self, batch: Batch) -> None:
        """Give the worker the batch that `time` measures."""
        self._ask(Hold(batch))

    def time(self, warmup_calls: int) -> tuple[int, ...]:
        """Return the durations in nanoseconds of one block of calls."""
        return _expect(self._ask(Time(warmup_calls)), tuple)

    def measure_memory(self, batch: Batch) -> PeakMemory:
        """Return peak memory while running `batch`."""
        return _expect(self._ask(MeasureMemory(batch)), PeakMemory)

    def measure_energy(self, batch: Batch, root: Path) -> EnergyBlock | None:
        """Return what a block of calls on `batch` drew; None when the counters below `root` stood still."""
        block = self._ask(MeasureEnergy(batch, root))
        return None if block is None else _expect(block, EnergyBlock)

    def observe(self, metric: Metric, batch: Batch) -> Observation:
        """Return what a metric finds on `batch`."""
        return _expect(self._ask(Observe(metric, batch)), Observation)

    def executed(self, batch: Batch) -> Executed:
        """Return the multiply-accumulates of one image by executed precision."""
        return _expect(self._ask(Inspect(batch)), Executed)

    def run(self, batch: Batch) -> Batch:
        """Return logits (n, classes)."""
        logits = _expect(self._ask(Run(batch)), np.ndarray)
        if logits.dtype.kind != "f":
            raise WorkerError(f"outputs are {logits.dtype}, expected floating point")
        return logits

    def _ask(self, request: Request) -> Answer:
        try:
            if not self._loaded:
                # Before anything that is larger than the pipe: it would block on a process that hangs.
                self._receive(request)
                self._loaded = True
            self._channel.send(request)
            return self._receive(request)
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            raise WorkerDiedError(self._describe_death(request)) from error

    def _receive(self, request: Request) -> Answer:
        if not self._channel.poll(self._timeout_s):
            self._process.kill()
            raise WorkerTimeoutError(
                f"no answer to {type(request).__name__} within {self._timeout_s:g} s; worker ended"
            )
        answer = cast("Answer | RequestFailure", self._channel.receive())
        if isinstance(answer, RequestFailure):
            raise WorkerError(answer.reason)
        return answer

    def _describe_death(self, request: Request) -> str:
        try:
            code = self._process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"the worker process died during {type(request).__name__} ({describe_exit(code)})"


def _expect(answer: Answer, kind: type[T]) -> T:
    if not isinstance(answer, kind):
        raise WorkerError(f"the session returned {type(answer).__name__}, expected {kind.__name__}")
    return answer


@dataclass
class _Bench:
    """The worker's own state: one session of the files in `folder`, and at most one batch."""

    session: Session
    folder: Path
    held: Batch
    floor_bytes: int
    loaded_bytes: int

    def answer(self, request: Request) -> Answer:
        match request:
            case Hold(batch):
                self.held = batch
                return None
            case Time(warmup_calls):
                return latency.time_block(self.session.run, self.held, warmup_calls=warmup_calls)
            case MeasureMemory(batch):
                return memory.measure_peak(
                    self.session.run,
                    batch,
                    ResidentMemory(),
                    floor_bytes=self.floor_bytes,
                    loaded_bytes=self.loaded_bytes,
                )
            case MeasureEnergy(batch, root):
                try:
                    return energy.measure_energy(
                        partial(self.session.run, batch), PackageCounters(find_packages(root))
                    )
                except UnsupportedError:
                    return None
            case Observe(metric, batch):
                return observing.observe(metric, self.session, self.folder, batch)
            case Run(batch):
                return self.session.run(batch)
            case Inspect(batch):
                return self.session.executed(batch)
            case Open():
                raise AssertionError("an artifact is opened once")


def _load(loading: Loading) -> type[Runtime]:
    """Import the runtime on any core, beside other workers, and only then keep to the measuring cores."""
    module, _, name = loading.runtime.partition(":")
    runtime: type[Runtime] = getattr(importlib.import_module(module), name)
    runtime(**dict(loading.options)).load_libraries(len(loading.cores))
    keep_to(loading.cores)
    return runtime


def _open(runtime: type[Runtime], opening: Opening, batch: Batch) -> tuple[_Bench, Opened]:
    resident = ResidentMemory()
    reason = resident.unavailable()
    floor = 0 if reason else resident.read_bytes()
    folder = Path(opening.folder)
    start = time.perf_counter()
    session = runtime(**dict(opening.options)).open(folder)
    session.run(batch)
    cold_start_s = time.perf_counter() - start
    loaded = 0 if reason else resident.read_bytes()
    opened = Opened(cold_start_s, None if reason else floor, None if reason else loaded, reason)
    return _Bench(session, folder, batch, floor, loaded), opened


def serve(channel: Channel) -> None:
    """Tell that the runtime is loaded or why not, and answer requests until the parent closes the pipe."""
    loading = cast(Loading, channel.receive())
    runtime = _guard(lambda: _load(loading))
    if isinstance(runtime, RequestFailure):
        channel.send(runtime)
        return
    channel.send(None)
    bench: _Bench | None = None
    while True:
        try:
            request = cast(Request, channel.receive())
        except EOFError:
            return
        if isinstance(request, Open):
            opened = _guard(partial(_open, runtime, request.opening, request.batch))
            if not isinstance(opened, RequestFailure):
                bench, answer = opened
                channel.send(answer)
            else:
                channel.send(opened)
        else:
            assert bench is not None
            channel.send(_guard(partial(bench.answer, request)))


def _guard(call: Callable[[], R]) -> R | RequestFailure:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - recorded by the parent as the variant's status and reason
        traceback.print_exc()
        return RequestFailure(explain(error))


def main() -> None:
    """Serve the process that started this one."""
    serve(connect_to_parent())
