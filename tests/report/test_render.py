from __future__ import annotations

import json
from pathlib import Path

import pytest

from quant_explorer.analysis.rank import summarize
from quant_explorer.core.errors import StorageError, StudyError
from quant_explorer.report.render import load_results, write_report
from quant_explorer.testing.replay import Scene, play
from tests.analysis.replayed import ORDINARY, RUN, ranked


@pytest.mark.parametrize(
    ("multi", "names"),
    [
        (False, {"full_results.json", "pareto.md", "pareto.png"}),
        (True, {"multi_results.json", "multi_pareto.md", "multi_pareto.png"}),
    ],
)
def test_a_report_is_three_files_and_reads_back(tmp_path: Path, multi: bool, names: set[str]) -> None:
    results = ranked(tmp_path, ORDINARY)
    write_report(results, tmp_path / "report", multi=multi)
    assert {path.name for path in (tmp_path / "report").iterdir()} == names
    (document,) = (tmp_path / "report").glob("*.json")
    assert load_results(document) == results


def test_a_report_of_the_same_study_is_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(ranked(tmp_path / f"of-{name}", ORDINARY), tmp_path / name, multi=False)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_other_environments_are_in_the_document(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    play(path, ORDINARY, Scene(environment="one"))
    study = play(path, ORDINARY, Scene(environment="two"))
    write_report(summarize(study, RUN, draws=50), tmp_path / "report", multi=False)
    written = load_results(tmp_path / "report" / "full_results.json")
    assert [other.environment.digest for other in written.others] == ["one"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file, not a folder")
    with pytest.raises(StorageError, match=r"full_results\.json: cannot be written"):
        write_report(ranked(tmp_path, ORDINARY), tmp_path / "report", multi=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a readable results file"),
        (b"", "not a readable results file"),
        (b'{"schema_version": 1, "run"', "not a readable results file"),
        (b"\xff\xfe", "not a readable results file"),
        (b"[]", "not a readable results file"),
        (b'{"schema_version": 99}', "schema version 99, this program reads 1 and 2"),
        (b'{"schema_version": 2}', "not a results document"),
        (b'{"schema_version": 1}', "not a results document"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "full_results.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match=message) as caught:
        load_results(path)
    assert str(path) in str(caught.value)


def test_a_truncated_document_is_refused(tmp_path: Path) -> None:
    write_report(ranked(tmp_path, ORDINARY), tmp_path, multi=False)
    path = tmp_path / "full_results.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StudyError):
        load_results(path)


def test_a_document_holds_only_finite_numbers(tmp_path: Path) -> None:
    write_report(ranked(tmp_path, ORDINARY), tmp_path, multi=False)
    text = (tmp_path / "full_results.json").read_text()
    json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
