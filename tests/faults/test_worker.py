"""Workers that break: each fault is a record with its status and reason, and the other variants go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from quant_explorer.core.contracts import Batch, Candidate, Lowering
from quant_explorer.core.measurement import Status
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline import experiment as experiment_module
from quant_explorer.pipeline.explore import Outcome, Until
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.techniques import create_step
from quant_explorer.testing.fake_runtime import FakeRuntime
from tests.faults.processes import MARK, nothing_left
from tests.pipeline.toy_runs import ENVIRONMENT, INT8, ImpatientWithHanging, exploration, fake

CHECKED = "when its files were checked: "
FP32 = fake("fp32_baseline")
STATIC = fake("static_int8", INT8)
KILLED = "(signal SIGKILL, which is also what the system sends when memory runs out)"
FAULTY = {
    "raise": Status.FAILED,
    "die": Status.DIED,
    "memory": Status.FAILED,
    "nan": Status.FAILED,
    "wrong_shape": Status.FAILED,
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def explored(run: RunFolder, *recipes: Recipe) -> Outcome:
    return exploration(run).explore(recipes, until=Until.MEASURED)


def statuses(run: RunFolder) -> dict[str, Status]:
    found = StudyFile.load(run.study).measurements(ENVIRONMENT.digest)
    return {measurement.variant.config: measurement.status for measurement in found.values()}


def reasons(outcome: Outcome) -> dict[str, str]:
    return {failure.variant.config: failure.reason or "" for failure in outcome.failures}


def test_each_fault_is_a_record_and_the_others_go_on(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    # They break after 9 answers (opening, memory, two batches of four); the check of their files takes two.
    faulty = [fake(fault, fault=fault, fault_after=9) for fault in FAULTY]
    with nothing_left() as mark:
        monkeypatch.setenv(MARK, mark)
        outcome = explored(
            run,
            FP32,
            *faulty,
            fake("float", INT8, fault="float_named_int8"),
            fake("dynamic", create_step("dynamic_int8")),
            STATIC,
        )
    expected = {
        "fp32_baseline": Status.OK,
        **FAULTY,
        "float": Status.BUILD_FAILED,
        "dynamic": Status.UNSUPPORTED,
        "static_int8": Status.OK,
    }
    assert statuses(run) == expected
    assert [contender.measurement.variant.config for contender in outcome.contenders] == [
        "fp32_baseline",
        "static_int8",
    ]
    assert {failure.variant.config: failure.status for failure in outcome.failures} == {
        name: status for name, status in expected.items() if status is not Status.OK
    }
    assert all(reason and CHECKED not in reason for reason in reasons(outcome).values())
    assert outcome.failed


def test_what_fails_at_once_fails_when_its_files_are_checked(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment_module, "Worker", ImpatientWithHanging)
    faulty = [fake(fault, fault=fault) for fault in FAULTY]
    with nothing_left() as mark:
        monkeypatch.setenv(MARK, mark)
        outcome = explored(run, FP32, *faulty, fake("hang", fault="hang", fault_after=1), STATIC)
    assert statuses(run) == {
        "fp32_baseline": Status.OK,
        **FAULTY,
        "hang": Status.TIMED_OUT,
        "static_int8": Status.OK,
    }
    found = reasons(outcome)
    assert found.pop("memory").startswith(f"{CHECKED}MemoryError: Unable to allocate 128. MiB")
    assert found == {
        "raise": f"{CHECKED}RuntimeError: the fake runtime was asked to raise",
        "die": f"{CHECKED}the worker process died during Open {KILLED}",
        "nan": f"{CHECKED}outputs of 16 of 16 images are not finite",
        "wrong_shape": f"{CHECKED}outputs have shape (16, 5), expected (16, 4)",
        "hang": f"{CHECKED}no answer to Run within 0.2 s; worker ended",
    }
    # Nothing of them is left that could be taken for sound another time.
    built = {contender.digest for contender in outcome.contenders}
    assert {path.name for path in run.artifacts.iterdir()} == built


def test_memory_that_runs_out_in_a_build_fails_that_variant(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = FakeRuntime.lower

    def exhaust(
        self: FakeRuntime, candidate: Candidate, calibration: Sequence[Batch], folder: Path
    ) -> Lowering:
        if candidate.spec.precision == "int8":
            raise MemoryError
        return lower(self, candidate, calibration, folder)

    monkeypatch.setattr(FakeRuntime, "lower", exhaust)
    outcome = explored(run, STATIC, FP32)
    assert statuses(run) == {"static_int8": Status.BUILD_FAILED, "fp32_baseline": Status.OK}
    assert reasons(outcome) == {"static_int8": "MemoryError without a message"}
    assert [path.name for path in run.artifacts.iterdir()] == [outcome.contenders[0].digest]
