"""A candidate lowered to files, and opened by a worker: what the conformance suite of runtimes asks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quant_explorer.core.contracts import Batch, Candidate, Lowering, Runtime
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.pipeline.worker.messages import Loading, Opening
from quant_explorer.pipeline.worker.process import Worker, runtime_path
from quant_explorer.testing.reference import differences

SPECS: Final = {
    "fp32": QuantSpec(),
    "bf16": QuantSpec("bf16"),
    "fp16": QuantSpec("fp16"),
    "dynamic_int8": QuantSpec("int8", "dynamic"),
    "static_int8_per_tensor": QuantSpec("int8", "static", "per_tensor", "minmax"),
    "static_int8_per_channel": QuantSpec("int8", "static", "per_channel", "minmax"),
}
WORKER_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class LoweredCandidate:
    """A candidate's files.

    `folder` is where they were moved to; `changed` names what lowering changed of the model.
    """

    candidate: Candidate
    lowering: Lowering
    changed: Sequence[str]
    folder: Path

    @property
    def spec(self) -> str:
        """What the candidate's spec is called in SPECS."""
        return next(name for name, spec in SPECS.items() if spec == self.candidate.spec)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by file."""
        return file_sizes(self.folder)


@dataclass(frozen=True)
class OpenedCandidate(LoweredCandidate):
    """A candidate's files, opened by the worker."""

    worker: Worker


def lower(
    runtime: Runtime, candidate: Candidate, calibration: Sequence[Batch], folder: Path
) -> LoweredCandidate:
    """Lower to `folder/written`, and move the files to `folder/moved`."""
    written = folder / "written"
    written.mkdir()
    before = copy.deepcopy(candidate.model)
    lowering = runtime.lower(candidate, calibration, written)
    changed = differences(before, candidate.model)
    return LoweredCandidate(candidate, lowering, changed, written.rename(folder / "moved"))


@contextmanager
def lower_and_open(
    runtime: Runtime, candidate: Candidate, calibration: Sequence[Batch], folder: Path
) -> Iterator[OpenedCandidate]:
    """Lower as `lower` does, and open the files in a worker process."""
    lowered = lower(runtime, candidate, calibration, folder)
    with open_lowered(runtime, lowered, calibration[0]) as opened:
        yield opened


@contextmanager
def open_lowered(runtime: Runtime, lowered: LoweredCandidate, batch: Batch) -> Iterator[OpenedCandidate]:
    """Open a candidate's files in a worker process."""
    with open_files(runtime, lowered.lowering, lowered.folder, batch) as worker:
        yield OpenedCandidate(lowered.candidate, lowered.lowering, lowered.changed, lowered.folder, worker)


@contextmanager
def open_files(runtime: Runtime, lowering: Lowering, folder: Path, batch: Batch) -> Iterator[Worker]:
    """Open the files in `folder` in a worker process, whose log is beside the folder."""
    loading = Loading(runtime_path(type(runtime)), lowering.options, measuring_cores(1))
    log = folder.with_name(f"{folder.name}.log")
    with Worker(loading, log=log, timeout_s=WORKER_TIMEOUT_S) as worker:
        worker.assign(Opening(lowering.options, str(folder)))
        worker.open(batch[:1])
        yield worker


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of every file below `folder`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
