"""For the tests of timing: variants on the fake runtime that need no measuring, and how they are timed."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Batch, Runtime
from quant_explorer.core.measurement import FileSize, Predictions
from quant_explorer.core.recipe import ParameterValue, Recipe, Step
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.building.build import build, create_runtime
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.timing.contender import Contender
from quant_explorer.pipeline.timing.rounds import time_variants
from tests.pipeline.toy_runs import INT8, PROTOCOL, RUNTIMES, exploration, fake, toy_experiment, toy_subject

SUBJECT = toy_subject()
BUILT = TemporaryDirectory()
RIGHT = tuple(SUBJECT.dataset.report.labels.tolist())
WRONG = tuple((label + 1) % 4 for label in RIGHT)
STEADY = repeat(1_000_000)
# Ends after so many rounds, for its time is up at once.
THREE_ROUNDS = replace(PROTOCOL, rounds=3)


def contender(
    run: RunFolder, recipe: Recipe, *, top1: tuple[int, ...] = RIGHT, more_bytes: int = 0
) -> Contender:
    """Build a recipe, and say of it what a measurement would have found."""
    artifact = built(recipe)
    measurement = replace(
        exploration(run, subject=SUBJECT)._blank(recipe),
        files=(*artifact.files, FileSize("more", more_bytes)),
        predictions=Predictions(tuple(range(len(top1))), top1, len(top1), trained=True),
    )
    return Contender(artifact, create_runtime(recipe, RUNTIMES), measurement)


@functools.cache
def built(recipe: Recipe) -> Artifact:
    """Build a recipe once for all tests, in a run of its own: one artifact has one name."""
    run = RunFolder(Path(mkdtemp(dir=BUILT.name)))
    return build(recipe, Preparation(toy_experiment(run, SUBJECT)), create_runtime(recipe, RUNTIMES))


def timed(
    run: RunFolder,
    contenders: Sequence[Contender],
    protocol: MeasurementProtocol = THREE_ROUNDS,
    subject: Subject = SUBJECT,
) -> tuple[StudyFile, tuple[str, ...]]:
    study = StudyFile.load(run.study)
    problems = time_variants(contenders[0], contenders[1:], Experiment(subject, run, protocol), study)
    assert StudyFile.load(run.study).records == study.records
    return study, problems


def fp32(run: RunFolder) -> Contender:
    return contender(run, fake("fp32_baseline"))


def int8(run: RunFolder, *steps: Step, **options: ParameterValue) -> Contender:
    return contender(run, fake("int8", *(steps or (INT8,)), **options))


@dataclass(frozen=True)
class StubWorker:
    """Stands in for a process where only the course of the rounds matters; every call takes `call_ns`."""

    call_ns: int
    pid: int = field(default_factory=os.getpid)

    def __enter__(self) -> StubWorker:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def open(self, batch: Batch) -> None:
        """Nothing to open."""

    def hold(self, batch: Batch) -> None:
        """Nothing to hold."""

    def measure_energy(self, batch: Batch, root: Path) -> None:
        """Draw nothing that a counter shows."""

    def time(self, warmup_calls: int) -> tuple[int, ...]:
        """Return three calls."""
        return (self.call_ns,) * 3


def without_processes(monkeypatch: pytest.MonkeyPatch, call_ns: Mapping[str, Iterable[int]]) -> None:
    """Let timing open stubs; `call_ns` gives a configuration's latencies, one for each time it is opened."""
    latencies = {config: iter(some) for config, some in call_ns.items()}

    def open_stub(_: Experiment, artifact: Artifact, runtime: Runtime) -> StubWorker:
        return StubWorker(next(latencies[artifact.manifest.recipe.config]))

    monkeypatch.setattr(Experiment, "open_worker", open_stub)
