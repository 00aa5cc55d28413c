from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.core.errors import StorageError, StudyError
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import (
    Block,
    Executed,
    FileSize,
    Measurement,
    PeakMemory,
    Predictions,
    ReportSplit,
    Round,
    Status,
    TimingEnd,
    TimingGroup,
    Variant,
    twin_key,
)
from quant_explorer.core.study import Record, StudyFile

ENVIRONMENT = Environment(
    "e1", "a cpu", ("avx2", "vnni"), 2, 8_000_000_000, 1, "Linux", "3.11", {"torch": "2.14.1"}
)
SPLIT = ReportSplit("s1", "mnist5k", ("zero", "one"), (0, 1, 1))
FLOAT = Variant("fp32_baseline@eager", "fp32_baseline", "eager", "small_cnn", "d1")
INT8 = Variant("static_int8@eager", "static_int8", "eager", "small_cnn", "d2")
MEASURED = Measurement(
    FLOAT,
    "e1",
    "s1",
    Status.OK,
    files=(FileSize("model.pt", 1_000),),
    executed=Executed({"fp32": 10}, {"conv2d": 2}),
    memory=(PeakMemory(1, 100, 200, 300),),
    cold_start_s=(0.25,),
    predictions=Predictions((0, 1, 2), (0, 1, 0), 3, trained=True, sqnr_db=31.5),
    notes=("fused",),
)
FAILED = Measurement(INT8, "e1", "s1", Status.DIED, reason="killed by signal 9")
ROUND = Round("e1", "g1", 8, 0, ((Block("d1", (5, 6)), Block(twin_key("d1"), (7,))),), 2.0, 0.5)
GROUP = TimingGroup("e1", "d1", "g1", ("d1",))
END = TimingEnd("e1", "g1", 8, "d1", "precision", ("d2",))
ALL: tuple[Record, ...] = (ENVIRONMENT, SPLIT, MEASURED, FAILED, GROUP, ROUND, END)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "study.jsonl"


@pytest.fixture
def study(path: Path) -> StudyFile:
    study = StudyFile(path)
    for record in ALL:
        study.append(record)
    return study


def test_every_kind_of_record_survives_the_file(study: StudyFile, path: Path) -> None:
    loaded = StudyFile.load(path)
    assert loaded.records == list(ALL) == study.records
    assert path.read_bytes().count(b"\n") == len(ALL)


def test_a_missing_file_is_an_empty_study(path: Path) -> None:
    assert StudyFile.load(path).records == []
    assert not path.exists()


def test_a_loaded_study_goes_on(study: StudyFile, path: Path) -> None:
    again = replace(ROUND, number=1)
    StudyFile.load(path).append(again)
    assert StudyFile.load(path).records == [*ALL, again]


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_a_torn_last_line_is_dropped_and_the_next_append_is_whole(
    study: StudyFile, path: Path, keep: int
) -> None:
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    path.write_bytes(content[: -len(last)] + last[:keep])
    resumed = StudyFile.load(path)
    assert resumed.records == list(ALL[:-1])
    resumed.append(END)
    assert path.read_bytes() == content


def test_a_file_with_nothing_but_a_torn_line_is_an_empty_study(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"schema_ver')
    study = StudyFile.load(path)
    assert study.records == []
    study.append(ENVIRONMENT)
    assert StudyFile.load(path).records == [ENVIRONMENT]


def round_of(calls_ns: tuple[int, ...]) -> dict[str, object]:
    block = {"key": "d1", "calls_ns": calls_ns}
    return {"environment": "e1", "group": "g1", "batch_size": 8, "number": 0, "passes": [[block]]}


def wrap(**changes: object) -> bytes:
    record = {"digest": "s1", "data": "x", "classes": ["a"], "labels": [0]}
    return json.dumps({"schema_version": 1, "kind": "split", "record": record, **changes}).encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (wrap(schema_version=3), "schema version 3, this program reads 1 and 2"),
        (wrap(schema_version=None), "schema version None"),
        (wrap(kind="surprise"), "unknown kind 'surprise'. Allowed: environment, split, measurement"),
        (wrap(record={"digest": "s1"}), "missing required field"),
        (wrap(record={"digest": 5, "data": "x", "classes": [], "labels": []}), "Expected `str`"),
        (wrap(record=[]), "Expected `object`"),
        (wrap(kind="round", schema_version=2, record=round_of(())), "a block of d1 has no calls"),
        (wrap(kind="round", schema_version=2, record=round_of((5, 0))), "or one that took no time"),
        (b'{"schema_version": 1}', "not a study record"),
        (b"[1, 2]", "not a study record"),
        (b"7", "not a study record"),
        (b"not json", "not a study record"),
        (b"[" * 100_000, "not a study record"),
        (b"\xff\xfe", "not a study record"),
        (b"", "not a study record"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(study: StudyFile, path: Path, line: bytes, message: str) -> None:
    lines = path.read_bytes().splitlines()
    lines[2] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(StudyError) as caught:
        StudyFile.load(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)


def test_the_lines_of_these_tests_are_otherwise_good(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(wrap() + b"\n")
    assert StudyFile.load(path).records == [ReportSplit("s1", "x", ("a",), (0,))]


def disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("owner_and_name", [(os, "fsync"), (Path, "open"), (Path, "mkdir")])
def test_a_full_disk_is_reported_and_loses_nothing(
    study: StudyFile, path: Path, monkeypatch: pytest.MonkeyPatch, owner_and_name: tuple[object, str]
) -> None:
    with monkeypatch.context() as full:
        full.setattr(*owner_and_name, disk_full)
        with pytest.raises(StorageError) as caught:
            study.append(replace(ROUND, number=1))
    assert str(path) in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert study.records == list(ALL)
    assert StudyFile.load(path).records[: len(ALL)] == list(ALL)


def test_a_path_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"study\.jsonl"):
        StudyFile(tmp_path / "file" / "study.jsonl").append(SPLIT)


def test_a_round_of_the_first_schema_is_one_pass(path: Path) -> None:
    path.parent.mkdir()
    record = {
        "environment": "e1",
        "group": "g1",
        "batch_size": 8,
        "number": 0,
        "order": ["d1#twin", "d1"],
        "calls_ns": {"d1": [5, 6], "d1#twin": [7]},
    }
    path.write_text(json.dumps({"schema_version": 1, "kind": "round", "record": record}) + "\n")
    (found,) = StudyFile.load(path).rounds("e1", 8)
    assert found.passes == ((Block("d1#twin", (7,)), Block("d1", (5, 6))),)
    assert found.calls_ns("d1") == (5, 6)
    for damaged, message in (
        ({key: value for key, value in record.items() if key != "order"}, "order"),
        (record | {"order": ["d1", "d2"]}, "there is no 'd2'"),
        (record | {"calls_ns": {"d1": [], "d1#twin": [7]}}, "a block of d1 has no calls"),
    ):
        path.write_text(json.dumps({"schema_version": 1, "kind": "round", "record": damaged}) + "\n")
        with pytest.raises(StudyError, match=rf"study\.jsonl:1: .*{message}"):
            StudyFile.load(path)


def test_records_are_found_by_what_they_are(study: StudyFile) -> None:
    assert study.environments == {"e1": ENVIRONMENT}
    assert study.splits == {"s1": SPLIT}
    assert study.measurements("e1") == {"d1": MEASURED, "d2": FAILED}
    assert study.rounds("e1", 8) == [ROUND]
    assert study.timing_ends("e1") == [END]
    assert study.timing_groups("e1", "d1") == [GROUP]
    assert study.timing_groups("e1", "d2") == []


@pytest.mark.parametrize(
    "query",
    [
        lambda study: study.measurements("e2"),
        lambda study: study.finished("e2"),
        lambda study: study.rounds("e2", 8),
        lambda study: study.rounds("e1", 32),
        lambda study: study.timing_ends("e2"),
        lambda study: study.timing_groups("e2", "d1"),
    ],
)
def test_environments_and_batch_sizes_are_never_mixed(
    study: StudyFile, query: Callable[[StudyFile], list[Record]]
) -> None:
    assert len(query(study)) == 0


def test_a_failure_is_never_cached_as_a_result(study: StudyFile) -> None:
    assert study.finished("e1") == {"d1"}
    study.append(Measurement(INT8, "e1", "s1", Status.OK))
    assert study.finished("e1") == {"d1", "d2"}
    assert list(study.measurements("e1")) == ["d1", "d2"]
    study.append(replace(MEASURED, status=Status.FAILED, reason="wrong shape"))
    assert study.finished("e1") == {"d2"}


def test_a_record_that_was_half_written_does_not_spoil_the_next(
    study: StudyFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(descriptor: int) -> None:
        os.ftruncate(descriptor, path.stat().st_size - 10)
        disk_full()

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", half_written)
        with pytest.raises(StorageError):
            study.append(replace(ROUND, number=1))
    study.append(replace(ROUND, number=2))
    assert StudyFile.load(path).records == [*ALL, replace(ROUND, number=2)]


def test_the_last_end_of_what_was_timed_on_counts(study: StudyFile) -> None:
    later = replace(END, stopped_by="precision", settled=())
    assert later != END
    study.append(later)
    assert study.timing_ends("e1") == [later]
