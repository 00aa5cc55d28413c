from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from quant_explorer.core.errors import StudyError
from quant_explorer.core.export import PREDICT, PREPROCESSING, STATEMENT, SUMS, find_changes, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (PREDICT, PREPROCESSING, STATEMENT, "model/weights.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    write_sums(tmp_path)
    return tmp_path


def test_the_hashes_are_those_that_sha256sum_checks(folder: Path) -> None:
    assert find_changes(folder) == ()
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "model/weights.bin: OK" in done.stdout


def test_changed_missing_and_added_files_are_named(folder: Path) -> None:
    (folder / "model/weights.bin").write_text("other")
    (folder / PREDICT).unlink()
    (folder / "numpy.py").write_text("")
    assert find_changes(folder) == (
        f"{PREDICT} is missing",
        "model/weights.bin changed",
        "numpy.py was added",
    )


@pytest.mark.parametrize("line", ["../outside", "/etc/hostname"])
def test_a_path_out_of_the_folder_is_refused(folder: Path, line: str) -> None:
    with (folder / SUMS).open("a") as stream:
        stream.write(f"{'0' * 64}  {line}\n")
    with pytest.raises(StudyError, match="SHA256SUMS:5: not a hash and a path inside the folder"):
        find_changes(folder)


def test_a_list_without_the_statement_is_no_export(folder: Path) -> None:
    lines = (folder / SUMS).read_text().splitlines(keepends=True)
    (folder / SUMS).write_text("".join(line for line in lines if STATEMENT not in line))
    with pytest.raises(StudyError, match=f"lists no {STATEMENT}"):
        find_changes(folder)
