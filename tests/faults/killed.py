"""A command in a process of its own, started by forkserver, that is killed at a stage of its run."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from quant_explorer.core.measurement import Measurement, Round
from quant_explorer.core.study import Record, StudyFile

# Whose call is the last thing that the process does, and at which time it is called.
STAGES: dict[str, tuple[str | type[Record], int]] = {
    "decoding": ("quant_explorer.datasets.cache:np.save", 1),
    "training": ("quant_explorer.pipeline.training.trainer:_save", 2),
    "keeping weights": ("quant_explorer.pipeline.subject:save_weights", 1),
    "building": ("quant_explorer.pipeline.building.build:check_files", 1),
    "building the second": ("quant_explorer.pipeline.building.build:write_manifest", 2),
    "scoring": ("quant_explorer.pipeline.explore:measure", 1),
    "recording a measurement": (Measurement, 1),
    "recording a round": (Round, 2),
    "reporting": ("quant_explorer.report.render:write_page", 1),
}


def run_command_until(stage: str | None, words: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run the command line in `folder` until `stage`, where the process kills itself; to its end without."""
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["quant-explorer", *words]
    output = os.open(folder / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if stage is not None:
        where, at = STAGES[stage]
        if isinstance(where, str):
            _die_in_call(where, at)
        else:
            _die_in_record(where, at)
    from quant_explorer.cli.app import app
    from quant_explorer.cli.console import run_command
    from quant_explorer.runtimes import RUNTIMES
    from quant_explorer.runtimes.onnxruntime.runtime import OnnxRuntime

    # A worker of eager would import PyTorch, for 2 s.
    RUNTIMES._members["eager"] = OnnxRuntime
    sys.exit(run_command(app, words))


def _die_in_call(where: str, at: int) -> None:
    module, _, attribute = where.partition(":")
    owner: object = importlib.import_module(module)
    *path, name = attribute.split(".")
    for part in path:
        owner = getattr(owner, part)
    setattr(owner, name, _counting(getattr(owner, name), at))


def _counting(call: Callable[..., object], at: int) -> Callable[..., object]:
    calls = 0

    def counted(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            _die()
        return call(*arguments, **named)

    return counted


def _die_in_record(kind: type[Record], at: int) -> None:
    append = StudyFile.append
    seen = 0

    def append_half(self: StudyFile, record: Record) -> None:
        nonlocal seen
        seen += isinstance(record, kind)
        if seen < at:
            append(self, record)
            return
        append(self, record)
        os.truncate(self.path, self.path.stat().st_size - 40)
        _die()

    StudyFile.append = append_half  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
