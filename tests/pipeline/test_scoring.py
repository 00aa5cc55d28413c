from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.errors import WorkerDiedError
from quant_explorer.core.recipe import ParameterValue
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.metrics.accuracy import Scored
from quant_explorer.pipeline import scoring
from quant_explorer.pipeline.building.build import build, create_runtime
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.scoring import balanced_order, score_split
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.testing.toys import toy_dataset
from tests.pipeline.toy_runs import PROTOCOL, RUNTIMES, fake, toy_subject

SUBJECT = toy_subject(dataset=toy_dataset(train=64, search=8, report=240))
PATIENT = replace(PROTOCOL, batch_sizes=(1, 4), time_limit_s=600)
Starter = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Starter:
    """Return what starts a worker of one sound artifact, on the measuring cores, with faults on demand."""
    recipe, experiment = fake("fp32"), Experiment(SUBJECT, RunFolder(tmp_path), PATIENT)
    runtime = create_runtime(recipe, RUNTIMES)
    artifact = build(recipe, Preparation(experiment), runtime)

    def start(**options: ParameterValue) -> Worker:
        manifest = replace(artifact.manifest, options=tuple(options.items()))
        return experiment.open_worker(Artifact(artifact.folder, manifest), runtime, measuring_cores(1))

    return start


def scored(worker: Worker, *helpers: Callable[[], Worker]) -> Scored:
    with worker:
        worker.open(SUBJECT.batch(1))
        return score_split(
            worker, helpers, "toy", Experiment(SUBJECT, RunFolder(Path()), PATIENT), SUBJECT.dataset.report
        )


@pytest.fixture
def always_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "HELP_PAYS_S", 1e-9)


def runs(worker: Worker, before: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Return the worker, which does something `before` each batch from now on."""
    run = worker.run
    monkeypatch.setattr(worker, "run", lambda batch: (before(), run(batch))[1])
    return worker


@pytest.mark.usefixtures("always_pays")
def test_a_helper_takes_its_share_and_changes_nothing(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = scored(start())
    assert alone.positions.tolist() == list(range(240))
    helped = threading.Semaphore(0)
    calls = itertools.count()

    def wait_for_help() -> None:
        if next(calls) == 2:
            assert helped.acquire(timeout=60)

    first = runs(start(), wait_for_help, monkeypatch)
    shared = scored(first, lambda: runs(start(), helped.release, monkeypatch))
    assert next(calls) < 60
    np.testing.assert_array_equal(shared.positions, alone.positions)
    np.testing.assert_array_equal(shared.logits, alone.logits)


@pytest.mark.usefixtures("always_pays")
@pytest.mark.parametrize("opened", [False, True])
def test_a_helper_that_dies_fails_the_variant(
    start: Starter, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    dead = threading.Event()
    calls = itertools.count()

    def dying() -> Worker:
        worker = start()

        def kill() -> None:
            os.kill(worker.pid, signal.SIGKILL)
            dead.set()

        if not opened:
            kill()
        return runs(worker, kill, monkeypatch)

    def wait_for_death() -> None:
        if next(calls) == 2:
            assert dead.wait(60)

    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        scored(runs(start(), wait_for_death, monkeypatch), dying)


@pytest.mark.usefixtures("always_pays")
def test_a_failure_leaves_nothing_to_do_for_the_helpers(start: Starter) -> None:
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        scored(start(fault="die", fault_after=4), partial(start, fault="slow"))


def test_nobody_is_asked_for_help_that_does_not_pay(start: Starter) -> None:
    def never() -> Worker:
        raise AssertionError("a second worker costs more than these images")

    assert len(scored(start(), never).positions) == 240


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_every_beginning_of_the_order_is_balanced(classes: list[int], seed: int) -> None:
    labels = np.array(classes, np.int64)
    order = balanced_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    np.testing.assert_array_equal(order, balanced_order(labels, seed))
    available = np.bincount(labels, minlength=5)
    for end in range(len(order) + 1):
        taken = np.bincount(labels[order[:end]], minlength=5)
        # A class is behind another only when it has no more images.
        assert (taken >= np.minimum(available, taken.max() - 1)).all()


def test_the_order_follows_the_seed() -> None:
    labels = np.arange(200) % 4
    assert not np.array_equal(balanced_order(labels, 0), balanced_order(labels, 1))
