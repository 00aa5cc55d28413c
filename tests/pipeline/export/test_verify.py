"""Exports of the toy model on the fake runtime, which is called eager so that it is the baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from quant_explorer.analysis.rank import gather_candidates
from quant_explorer.analysis.results import RunInfo
from quant_explorer.analysis.statement import Statement, state
from quant_explorer.core.artifact import Artifact, write_manifest
from quant_explorer.core.errors import DataError, StudyError
from quant_explorer.core.export import MODEL_FOLDER, STATEMENT, write_sums
from quant_explorer.core.progress import Silent
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.explore import Exploration
from quant_explorer.pipeline.export import verify as verifying
from quant_explorer.pipeline.export.folder import find_artifact, write_export
from quant_explorer.pipeline.export.verify import Asked, Finding, verify_export
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.stats.intervals import Interval
from quant_explorer.testing.fake_runtime import FakeRuntime
from quant_explorer.testing.toys import toy_dataset
from tests.pipeline.toy_runs import ENVIRONMENT, toy_experiment

PROTOCOL = MeasurementProtocol(batch_sizes=(1,), rounds=2, precision=1e-9, time_limit_s=1e-9)
INFO = RunInfo(Settings(data="toy"), PROTOCOL)
AS_IT_WAS = Asked(None, None, max_slowdown=10.0)
OTHERS = dict.fromkeys(("predict.py", "preprocessing.json"), b"")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Statement]:
    run = RunFolder(tmp_path_factory.mktemp("measured"))
    going = Exploration(
        toy_experiment(run, protocol=PROTOCOL),
        study=StudyFile.load(run.study),
        environment=ENVIRONMENT,
        runtimes={"eager": FakeRuntime},
    )
    going.explore([Recipe("fp32_baseline", (), "eager")])
    statement = state(gather_candidates(going.study, INFO), INFO, ENVIRONMENT, "fp32_baseline@eager", None)
    return find_artifact(run, statement.measurement), statement


@pytest.fixture
def export(measured: tuple[Artifact, Statement], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    artifact, statement = measured
    write_export(tmp_path / "export", artifact, {**OTHERS, STATEMENT: statement.encode()})
    monkeypatch.setitem(RUNTIMES._members, "eager", FakeRuntime)
    use_data(monkeypatch, seed=0)
    return tmp_path / "export"


def use_data(monkeypatch: pytest.MonkeyPatch, *, seed: int) -> None:
    dataset = toy_dataset(train=64, search=8, report=40, seed=seed)
    monkeypatch.setattr(verifying, "load_stated_data", lambda *given: dataset)


def restate(export: Path, statement: Statement) -> None:
    (export / STATEMENT).write_bytes(statement.encode())
    write_sums(export)


def of(findings: tuple[Finding, ...], figure: str) -> Finding:
    (found,) = (finding for finding in findings if finding.figure.startswith(figure))
    return found


def test_an_unchanged_export_holds(export: Path) -> None:
    found = verify_export(export, AS_IT_WAS, Silent())
    assert found.holds
    assert [finding.verdict for finding in found.findings] == ["holds"] * 3
    accuracy = of(found.findings, "top-1")
    assert accuracy.stated == accuracy.here
    assert accuracy.reason == ""


def test_changed_files_are_not_opened(export: Path) -> None:
    (export / MODEL_FOLDER / "linear.npz").write_bytes(b"something else")
    found = verify_export(export, AS_IT_WAS, Silent())
    assert not found.holds
    (only,) = found.findings
    assert only.reason == "model/linear.npz changed"


def test_a_replaced_model_with_hashes_of_its_own_is_found_by_its_predictions(export: Path) -> None:
    file = export / MODEL_FOLDER / "linear.npz"
    with np.load(file) as arrays:
        np.savez(file, weight=-arrays["weight"], bias=-arrays["bias"])
    write_sums(export)
    found = verify_export(export, AS_IT_WAS, Silent())
    assert not found.holds
    accuracy = of(found.findings, "top-1")
    assert accuracy.verdict == "does not hold"
    assert "of 40 images get another class here" in accuracy.reason


def test_files_that_do_not_open_do_not_hold(export: Path) -> None:
    (export / MODEL_FOLDER / "linear.npz").write_bytes(b"something else")
    write_sums(export)
    found = verify_export(export, AS_IT_WAS, Silent())
    assert of(found.findings, "opening and running").verdict == "does not hold"


def test_a_latency_that_was_never_so_low_does_not_hold(
    export: Path, measured: tuple[Artifact, Statement]
) -> None:
    statement = measured[1]
    never = replace(statement.variant.latency["1"], p50_s=1e-9, p50_ci_s=Interval(1e-9, 2e-9))
    restate(export, replace(statement, variant=replace(statement.variant, latency={"1": never})))
    found = verify_export(export, AS_IT_WAS, Silent())
    assert not found.holds
    assert of(found.findings, "median latency").verdict == "does not hold"
    assert of(found.findings, "top-1").verdict == "holds"


def test_without_the_images_accuracy_is_not_repeated(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_data(monkeypatch, seed=1)
    found = verify_export(export, AS_IT_WAS, Silent())
    assert found.holds
    accuracy = of(found.findings, "top-1")
    assert accuracy.verdict == "not repeated"
    assert "toy has other images than the figures are of" in accuracy.reason
    assert of(found.findings, "median latency").verdict == "holds"
    with pytest.raises(DataError, match="other images"):
        verify_export(export, replace(AS_IT_WAS, data="toy"), Silent())


def test_a_cpu_without_what_the_figures_need_is_a_warning(
    export: Path, measured: tuple[Artifact, Statement]
) -> None:
    manifest = Artifact.load(export / MODEL_FOLDER).manifest
    write_manifest(export / MODEL_FOLDER, replace(manifest, needs=("VNNI",)))
    statement = measured[1]
    there = replace(statement.environment, instruction_sets=("made_up_set",))
    restate(export, replace(statement, environment=there))
    warnings = verify_export(export, AS_IT_WAS, Silent()).warnings
    assert warnings[0].startswith("this CPU lacks VNNI, which the accuracy of these files needs")
    assert warnings[1] == "this CPU lacks made_up_set, which the latency was measured with"


def test_a_statement_that_cannot_be_read_is_unusable(export: Path) -> None:
    content = msgspec.json.decode((export / STATEMENT).read_bytes())
    (export / STATEMENT).write_bytes(msgspec.json.encode({**content, "schema_version": 99}))
    write_sums(export)
    with pytest.raises(StudyError, match="schema version 99"):
        verify_export(export, AS_IT_WAS, Silent())
