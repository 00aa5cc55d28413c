"""The one loop, with real workers of the fake runtime."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant_explorer.core.contracts import Batch, Candidate, Lowering
from quant_explorer.core.errors import StorageError
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Measurement, ReportSplit, Status
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.core.study import StudyFile
from quant_explorer.metrics import METRICS
from quant_explorer.pipeline import experiment as experiment_module
from quant_explorer.pipeline import explore as explore_module
from quant_explorer.pipeline.explore import Outcome, Until
from quant_explorer.pipeline.run import RunFolder, open_run
from quant_explorer.pipeline.scoring import LEAST_SCORED_IMAGES
from quant_explorer.pipeline.worker.messages import Opening
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.techniques import create_step
from quant_explorer.testing.fake_runtime import FakeRuntime
from quant_explorer.testing.toys import toy_dataset
from tests.pipeline.toy_metric import ProcessAndSize, Right
from tests.pipeline.toy_runs import (
    ENVIRONMENT,
    INT8,
    PROTOCOL,
    Watching,
    exploration,
    fake,
    scaled,
    toy_subject,
)

CHECKED = "when its files were checked: "
FP32 = fake("fp32_baseline")
STATIC = fake("static_int8", INT8)
FAULTY = {"raise": Status.FAILED, "die": Status.DIED, "nan": Status.FAILED, "wrong_shape": Status.FAILED}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def explored(run: RunFolder, *recipes: Recipe, until: Until = Until.MEASURED) -> Outcome:
    return exploration(run).explore(recipes, until=until)


def statuses(run: RunFolder) -> dict[str, Status]:
    found = StudyFile.load(run.study).measurements(ENVIRONMENT.digest)
    return {measurement.variant.config: measurement.status for measurement in found.values()}


def reasons(outcome: Outcome) -> dict[str, str]:
    return {failure.variant.config: failure.reason or "" for failure in outcome.failures}


def test_a_metric_is_observed_in_the_worker_also_of_what_was_measured_before_it_was_there(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    explored(run, FP32)
    # Workers import the metric by its module's name.
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setitem(METRICS._members, ProcessAndSize.name, ProcessAndSize())
    explored(run, FP32)
    (found,) = StudyFile.load(run.study).measurements(ENVIRONMENT.digest).values()
    (observed,) = found.observations
    pid, size, logits = observed.values
    assert (observed.metric, observed.unit, observed.reason) == ("process_and_size", "n", None)
    assert pid != os.getpid()
    assert size == sum(file.bytes for file in found.files)
    assert logits == 4
    records = len(StudyFile.load(run.study).records)
    explored(run, FP32)
    assert len(StudyFile.load(run.study).records) == records


def test_a_metric_of_outputs_sees_the_logits_that_accuracy_is_of(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS._members, Right.name, Right())
    explored(run, FP32)
    (found,) = StudyFile.load(run.study).measurements(ENVIRONMENT.digest).values()
    (observed,) = found.observations
    assert found.predictions is not None
    labels = toy_subject().dataset.report.labels[list(found.predictions.positions)]
    right = int((labels == found.predictions.top1).sum())
    assert 0 < right < len(labels)
    assert (observed.metric, observed.values) == ("right", (right,))


def test_a_lowering_that_computes_something_else_is_a_failed_build(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRuntime, "lower", scaled(1.001))
    outcome = explored(run, FP32, STATIC)
    assert statuses(run) == {"fp32_baseline": Status.BUILD_FAILED, "static_int8": Status.OK}
    assert reasons(outcome) == {
        "fp32_baseline": "the lowered FP32 model is off by 0.001 of the largest logit; 0.0001 is allowed"
    }
    assert outcome.failed


def test_files_that_cannot_be_opened_are_a_failure_with_the_reason(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeRuntime, "lower", lambda *_: Lowering((), ()))
    outcome = explored(run, STATIC)
    assert statuses(run) == {"static_int8": Status.FAILED}
    assert reasons(outcome)["static_int8"].startswith(f"{CHECKED}No such file or directory: ")
    assert list(run.artifacts.iterdir()) == []


def test_environment_and_split_are_recorded_first_and_once(run: RunFolder) -> None:
    explored(run, FP32)
    explored(run, FP32, STATIC)
    records = StudyFile.load(run.study).records
    kinds = [type(record) for record in records]
    assert kinds == [Environment, ReportSplit, Measurement, Measurement]
    assert records[:2] == [ENVIRONMENT, toy_subject().split]


def test_what_was_recorded_is_not_done_again(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = explored(run, FP32, STATIC, until=Until.TIMED)
    assert first.problems == ()
    before = run.study.read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(experiment_module, "Worker", refuse)
    second = explored(run, FP32, STATIC, until=Until.TIMED)
    assert [contender.measurement for contender in second.contenders] == [
        contender.measurement for contender in first.contenders
    ]
    assert not second.failed
    assert run.study.read_bytes() == before


def test_what_a_later_protocol_asks_for_is_measured(run: RunFolder) -> None:
    """Memory at a new batch size, and images that a shorter time left out; only once."""
    more_images = toy_dataset(train=64, search=8, report=LEAST_SCORED_IMAGES + 40)

    def explore(protocol: MeasurementProtocol) -> tuple[Measurement, list[str]]:
        watching = Watching(lambda *_: None)
        subject = toy_subject(dataset=more_images, progress=watching)
        outcome = exploration(run, subject=subject, protocol=protocol).explore([FP32], until=Until.MEASURED)
        return outcome.contenders[0].measurement, watching.messages

    def scored(measurement: Measurement) -> int:
        assert measurement.predictions is not None
        return len(measurement.predictions.positions)

    first, _ = explore(PROTOCOL)
    assert scored(first) < 140
    larger = replace(PROTOCOL, batch_sizes=(1, 4, 8))
    second, messages = explore(larger)
    assert [memory.batch_size for memory in second.memory] == [1, 8]
    assert messages == ["Measuring fp32_baseline@fake again for peak memory at batch 8."]
    third, messages = explore(replace(larger, time_limit_s=60.0))
    assert scored(third) == 140
    assert messages == [
        f"Measuring fp32_baseline@fake again for outputs of {140 - scored(second)} of 140 images."
    ]
    assert explore(larger) == (third, [])


def test_a_study_of_before_the_search_split_is_completed(run: RunFolder) -> None:
    explored(run, FP32)
    study = run.load_study()
    (found,) = [record for record in study.records if isinstance(record, Measurement)]
    run.study.unlink()
    earlier = StudyFile(run.study)
    for record in study.records:
        if isinstance(record, Measurement):
            earlier.append(replace(record, search_predictions=None))
        elif isinstance(record, ReportSplit):
            earlier.append(replace(record, search_labels=()))
        else:
            earlier.append(record)
    explored(run, FP32)
    (again,) = run.load_study().measurements(found.environment).values()
    assert again.search_predictions == found.search_predictions is not None
    assert run.load_study().splits[found.split].search_labels


def test_another_environment_is_measured_again(run: RunFolder) -> None:
    explored(run, FP32)
    elsewhere = replace(ENVIRONMENT, digest="elsewhere")
    replace(exploration(run), environment=elsewhere).explore([FP32], until=Until.MEASURED)
    study = StudyFile.load(run.study)
    assert set(study.environments) == {"here", "elsewhere"}
    assert len(study.measurements("elsewhere")) == len(study.measurements("here")) == 1


def test_a_failure_is_tried_again(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = FakeRuntime.lower
    monkeypatch.setattr(FakeRuntime, "lower", lambda *_: 1 / 0)
    outcome = explored(run, STATIC)
    assert outcome.failures[0].status is Status.BUILD_FAILED
    assert outcome.failures[0].reason == "ZeroDivisionError: division by zero"
    monkeypatch.setattr(FakeRuntime, "lower", lower)
    assert not explored(run, STATIC).failed
    assert statuses(run) == {"static_int8": Status.OK}


def test_a_failed_build_leaves_its_traceback_in_the_log(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeRuntime, "lower", lambda *_: 1 / 0)
    with open_run(run.path):
        explored(run, STATIC)
    assert "building static_int8@fake failed" in run.log.read_text()
    assert "ZeroDivisionError" in run.log.read_text()
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_done_is_recorded_with_its_reason_once(run: RunFolder) -> None:
    dynamic = fake("dynamic", create_step("dynamic_int8"))
    outcome = explored(run, FP32, dynamic)
    assert not outcome.failed
    before = run.study.read_bytes()
    again = explored(run, FP32, dynamic)
    assert again.failures == outcome.failures
    assert "fake lowers fp32 and calibrated static int8" in (outcome.failures[0].reason or "")
    assert run.study.read_bytes() == before


def test_the_reference_of_a_resumed_run_is_that_of_the_first(run: RunFolder) -> None:
    explored(run, FP32)
    explored(run, FP32, STATIC)
    resumed = StudyFile.load(run.study).records[-1]
    assert isinstance(resumed, Measurement)
    at_once = RunFolder(run.path / "at-once")
    explored(at_once, FP32, STATIC)
    whole = StudyFile.load(at_once.study).records[-1]
    assert isinstance(whole, Measurement)
    assert whole.predictions == resumed.predictions
    assert whole.predictions is not None
    assert whole.predictions.sqnr_db is not None


@pytest.mark.parametrize("after", [0, 9], ids=["when checked", "when measured"])
def test_a_baseline_that_fails_is_reported_and_nothing_is_timed(run: RunFolder, after: int) -> None:
    broken = fake("fp32_baseline", fault="raise", fault_after=after)
    outcome = explored(run, broken, STATIC, until=Until.TIMED)
    assert outcome.failed
    assert statuses(run) == {"fp32_baseline": Status.FAILED, "static_int8": Status.OK}
    assert StudyFile.load(run.study).rounds(ENVIRONMENT.digest, 1) == []


def test_fp32_of_the_next_runtime_stands_in_for_one_that_cannot_have_the_model(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Eager, "unsupported", lambda self, candidate: "it is an ONNX file")
    outcome = explored(run, Recipe("fp32_baseline", (), "eager"), STATIC, until=Until.TIMED)
    assert not outcome.failed
    assert [contender.measurement.variant.name for contender in outcome.contenders] == [
        "fp32_baseline@fake",
        "static_int8@fake",
    ]
    study = StudyFile.load(run.study)
    baseline, static = outcome.contenders
    assert study.timing_groups(ENVIRONMENT.digest, baseline.digest)
    assert static.measurement.predictions is not None
    assert static.measurement.predictions.sqnr_db is not None


@pytest.mark.parametrize("until", [Until.BUILT, Until.MEASURED])
def test_an_empty_table_is_no_success(run: RunFolder, until: Until) -> None:
    impossible = fake("fp32_baseline", create_step("dynamic_int8"))
    outcome = explored(run, impossible, until=until)
    assert outcome.failures[0].status is Status.UNSUPPORTED
    assert outcome.failed
    assert "no variant that was asked for is possible" in outcome.problems[0]


def test_until_built_starts_one_worker_for_each_that_is_built(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Counted(Worker):
        def assign(self, opening: Opening) -> None:
            super().assign(opening)
            opened.append(opening.folder)

    monkeypatch.setattr(experiment_module, "Worker", Counted)
    outcome = explored(run, FP32, STATIC, until=Until.BUILT)
    assert all((contender.artifact.folder / "manifest.json").exists() for contender in outcome.contenders)
    assert len(opened) == len(set(opened)) == 2
    explored(run, FP32, STATIC, until=Until.BUILT)
    assert len(opened) == 2
    assert statuses(run) == {}


def test_a_problem_while_timing_is_a_failure(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def problem(*_: object) -> tuple[str, ...]:
        return ("timing static_int8@fake: the worker process died",)

    monkeypatch.setattr(explore_module, "time_variants", problem)
    outcome = explored(run, FP32, STATIC, until=Until.TIMED)
    assert outcome.problems == problem()
    assert outcome.failed


@pytest.mark.parametrize("place", ["artifacts", "outputs", "study.jsonl"])
def test_what_cannot_be_written_ends_the_run_and_is_named(run: RunFolder, place: str) -> None:
    ready = exploration(run)
    if place.endswith(".jsonl"):
        run.study.mkdir()
    else:
        (run.path / place).write_text("in the way")
    with pytest.raises(StorageError, match=place):
        ready.explore([FP32], until=Until.MEASURED)


def test_a_file_that_a_library_misses_fails_its_variant_alone(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = FakeRuntime.lower

    def miss(self: FakeRuntime, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        if candidate.spec.precision == "int8":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/opt/vendor/libkernels.so")
        return lower(self, candidate, calibration, folder)

    monkeypatch.setattr(FakeRuntime, "lower", miss)
    outcome = explored(run, STATIC, FP32)
    assert statuses(run) == {"static_int8": Status.BUILD_FAILED, "fp32_baseline": Status.OK}
    assert "/opt/vendor/libkernels.so" in reasons(outcome)["static_int8"]


def test_ctrl_c_keeps_what_was_recorded(run: RunFolder) -> None:
    def seen(label: str, done: int, note: str) -> None:
        if label == "score static_int8@fake" and done:
            raise KeyboardInterrupt

    subject = toy_subject(progress=Watching(seen))
    with pytest.raises(KeyboardInterrupt):
        exploration(run, subject=subject).explore([FP32, STATIC], until=Until.MEASURED)
    assert statuses(run) == {"fp32_baseline": Status.OK}
    before = run.study.read_bytes()
    explored(run, FP32, STATIC)
    assert statuses(run) == {"fp32_baseline": Status.OK, "static_int8": Status.OK}
    assert run.study.read_bytes().startswith(before)


def test_the_next_is_built_while_images_are_scored_but_recorded_in_turn(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring, lowering = threading.Event(), threading.Event()
    lower = FakeRuntime.lower

    def lower_second(
        self: FakeRuntime, candidate: Candidate, calibration: Sequence[Batch], folder: Path
    ) -> Lowering:
        if candidate.spec.precision == "int8":
            assert scoring.wait(60)
            lowering.set()
            raise ValueError("not today")
        return lower(self, candidate, calibration, folder)

    def seen(label: str, done: int, note: str) -> None:
        if label == "score fp32_baseline@fake" and done:
            scoring.set()
            assert lowering.wait(60)

    monkeypatch.setattr(FakeRuntime, "lower", lower_second)
    outcome = exploration(run, subject=toy_subject(progress=Watching(seen))).explore(
        [FP32, STATIC], until=Until.MEASURED
    )
    assert reasons(outcome) == {"static_int8": "ValueError: not today"}
    assert list(statuses(run).items()) == [
        ("fp32_baseline", Status.OK),
        ("static_int8", Status.BUILD_FAILED),
    ]


def test_ctrl_c_in_a_build_does_not_wait_for_what_is_being_scored(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()
    lower = FakeRuntime.lower

    class Hanging(Worker):
        def run(self, batch: Batch) -> Batch:
            if len(batch) == max(PROTOCOL.batch_sizes):
                os.kill(self.pid, signal.SIGSTOP)
                hanging.set()
            return super().run(batch)

    def interrupt_second(
        self: FakeRuntime, candidate: Candidate, calibration: Sequence[Batch], folder: Path
    ) -> Lowering:
        if candidate.spec.precision == "int8":
            assert hanging.wait(60)
            raise KeyboardInterrupt
        return lower(self, candidate, calibration, folder)

    monkeypatch.setattr(experiment_module, "Worker", Hanging)
    monkeypatch.setattr(FakeRuntime, "lower", interrupt_second)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        exploration(run).explore([FP32, STATIC], until=Until.MEASURED)
    assert time.monotonic() - started < PROTOCOL.answer_timeout_s
    assert statuses(run) == {}


def test_logits_are_kept_for_those_who_compare_later(run: RunFolder) -> None:
    outcome = explored(run, FP32)
    (contender,) = outcome.contenders
    with np.load(run.outputs / f"{contender.digest}.npz") as stored:
        assert stored["logits"].shape == (40, 4)
        np.testing.assert_array_equal(stored["positions"], np.arange(40))
