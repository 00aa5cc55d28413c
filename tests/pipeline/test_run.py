from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.core.artifact import atomic_folder
from quant_explorer.core.errors import RunBusyError, SettingsError, StorageError, StudyError
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.pipeline.run import RunDescription, RunFolder, open_run

SETTINGS = Settings(
    "mnist5k", "small_cnn", Path("data"), Path("w.pt"), seed=3, train_subset=200, engine="x86"
)
WANTED = RunDescription(SETTINGS, MeasurementProtocol(threads=2, batch_sizes=(1, 4), time_limit_s=2.5))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def with_results(run: RunFolder) -> RunFolder:
    run.study.write_text("")
    return run


def test_a_new_folder_has_no_description(run: RunFolder) -> None:
    assert run.describe() is None
    assert run.load_study().records == []


def test_what_was_claimed_is_read_back(run: RunFolder) -> None:
    run.claim(WANTED)
    assert run.describe() == WANTED
    plain = RunDescription(replace(SETTINGS, weights=None, train_subset=None), MeasurementProtocol())
    run.claim(plain)
    assert run.describe() == plain


def test_other_settings_are_refused_and_listed(run: RunFolder) -> None:
    run.claim(WANTED)
    with_results(run)
    other = replace(WANTED, settings=replace(SETTINGS, seed=4, weights=None))
    with pytest.raises(
        SettingsError, match=r"was made with --weights w\.pt \(now not given\), --seed 3 \(now 4\)"
    ):
        run.claim(other)
    assert run.describe() == WANTED


@pytest.mark.parametrize("kept", ["study.jsonl", "weights", "artifacts"])
def test_any_result_fixes_the_settings(run: RunFolder, kept: str) -> None:
    run.claim(WANTED)
    (run.path / kept).mkdir()
    with pytest.raises(SettingsError):
        run.claim(replace(WANTED, settings=replace(SETTINGS, seed=4)))


def test_a_folder_without_results_can_be_used_for_anything(run: RunFolder) -> None:
    run.claim(WANTED)
    other = replace(WANTED, settings=replace(SETTINGS, data="cifar10"))
    run.claim(other)
    assert run.describe() == other


def test_the_protocol_may_change(run: RunFolder) -> None:
    run.claim(WANTED)
    with_results(run)
    other = replace(WANTED, protocol=MeasurementProtocol(rounds=30))
    run.claim(other)
    assert run.describe() == other


@pytest.mark.parametrize("content", [b"", b"{", b'{"settings": {}}', b"\xff\xfe", b"[]"])
def test_a_torn_description_is_named(run: RunFolder, content: bytes) -> None:
    run.description.write_bytes(content)
    with pytest.raises(StudyError, match=r"run\.json: not a readable run description"):
        run.describe()


def test_a_folder_is_no_description(run: RunFolder) -> None:
    run.description.mkdir()
    with pytest.raises(StudyError, match=r"run\.json: not a readable run description"):
        run.describe()


def test_a_value_that_is_not_allowed_is_not_read_either(run: RunFolder) -> None:
    run.claim(WANTED)
    run.description.write_text(run.description.read_text().replace('"epochs": 5', '"epochs": 0'))
    with pytest.raises(SettingsError, match="--epochs 0"):
        run.describe()


OCCUPIER = """
import pathlib, sys
from quant_explorer.pipeline.run import open_run
with open_run(pathlib.Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OCCUPIER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"in\n"
        with (
            pytest.raises(RunBusyError, match="is in use by another quant-explorer process"),
            open_run(tmp_path),
        ):
            pass
        first.kill()
    # Killed, it leaves its lock file but not its lock.
    assert (tmp_path / ".lock").exists()
    with open_run(tmp_path) as run:
        assert run.path == tmp_path


def test_a_killed_build_is_cleared_away_and_one_that_is_under_way_is_not(tmp_path: Path) -> None:
    with open_run(tmp_path) as run, atomic_folder(run.artifacts / "d1") as under_way:
        # As a process that was killed has left it.
        (run.artifacts / f"{under_way.name}-left").mkdir()
        with pytest.raises(RunBusyError), open_run(tmp_path):
            pass
        assert under_way.is_dir()
    with open_run(tmp_path):
        assert [path.name for path in run.artifacts.iterdir()] == ["d1"]


def test_a_failure_inside_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path / "run"):
        raise ZeroDivisionError
    with open_run(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"file/run: cannot be written"),
        open_run(tmp_path / "file" / "run"),
    ):
        pass


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(StorageError, match=r"log\.txt: cannot be written"), open_run(tmp_path):
        pass


def test_libraries_write_to_the_log_and_only_inside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_run(tmp_path) as run:
        logging.getLogger("some.library").warning("inside")
        # Where logging.captureWarnings sends what libraries warn of.
        logging.getLogger("py.warnings").warning("deprecated")
    logging.getLogger("some.library").warning("outside")
    sentences = run.log.read_text()
    assert "WARNING some.library: inside" in sentences
    assert "deprecated" in sentences
    assert "outside" not in sentences
    assert "inside" not in "".join(capfd.readouterr())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_a_log_on_a_full_disk_does_not_reach_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with open_run(tmp_path):
        logging.getLogger("some.library").warning("nowhere to write this")
    assert capfd.readouterr() == ("", "")
