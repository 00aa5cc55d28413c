from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.core.errors import BuildError, SettingsError, StudyError, UnsupportedError
from quant_explorer.core.export import find_changes
from quant_explorer.core.measurement import FileSize, Measurement
from quant_explorer.pipeline.explore import Until
from quant_explorer.pipeline.export.folder import find_artifact, find_deployment, write_export
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.fake_runtime import FakeRuntime
from tests.pipeline.toy_runs import exploration, fake

FILES = dict.fromkeys(("statement.json", "predict.py", "preprocessing.json"), b"")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def measured(run: RunFolder) -> Measurement:
    outcome = exploration(run).explore([fake("fp32_baseline")], until=Until.MEASURED)
    return outcome.contenders[0].measurement


def test_what_is_written_has_the_measured_files_and_their_hashes(run: RunFolder, tmp_path: Path) -> None:
    measurement = measured(run)
    artifact = find_artifact(run, measurement)
    (tmp_path / "to").mkdir()
    write_export(tmp_path / "to", artifact, FILES)
    assert find_changes(tmp_path / "to") == ()
    for file in artifact.files:
        copy, original = tmp_path / "to" / "model" / file.path, artifact.folder / file.path
        assert copy.read_bytes() == original.read_bytes()


def test_files_that_are_gone_damaged_or_others_are_not_exported(run: RunFolder) -> None:
    measurement = measured(run)
    other = replace(measurement, files=(FileSize("more", 1),))
    with pytest.raises(StudyError, match="not the files that were measured as fp32_baseline@fake"):
        find_artifact(run, other)
    folder = run.artifacts / measurement.variant.digest
    (folder / measurement.files[0].path).write_bytes(b"damaged")
    with pytest.raises(StudyError, match="missing or changed since it was built"):
        find_artifact(run, measurement)
    shutil.rmtree(folder)
    with pytest.raises(StudyError, match="the files of fp32_baseline@fake are not there"):
        find_artifact(run, measurement)


def test_a_folder_that_holds_something_is_left_as_it_is(run: RunFolder, tmp_path: Path) -> None:
    artifact = find_artifact(run, measured(run))
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine").touch()
    with pytest.raises(SettingsError, match="new or empty"):
        write_export(tmp_path / "to", artifact, FILES)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["mine"]


def test_an_export_that_fails_its_check_does_not_appear(run: RunFolder, tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        assert find_changes(folder) == ()
        raise BuildError("other outputs")

    artifact = find_artifact(run, measured(run))
    with pytest.raises(BuildError, match="other outputs"):
        write_export(tmp_path / "to", artifact, FILES, refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_runtime_that_does_not_say_how_its_files_run_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES._members, "fake", FakeRuntime)
    with pytest.raises(UnsupportedError, match="runtime fake does not say how"):
        find_deployment("fake")
