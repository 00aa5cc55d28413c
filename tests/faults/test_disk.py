"""Full disks: the file is named, what was recorded is kept, and the run goes on when there is space."""

from __future__ import annotations

import pytest

from quant_explorer.core.study import StudyFile
from tests.cli.invoking import ONNX, SMALL, Place


@pytest.mark.slow
def test_weights_on_a_full_disk(finished: Place, place: Place) -> None:
    # The images are in the cache already.
    done = place.call("train", *SMALL, "--epochs", "1", "--run-dir", "run", limit_file_bytes=100_000)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: run/weights/baseline-" in done.stderr
    assert "cannot be written (File too large)" in done.stderr
    assert not [path for path in (place.folder / "run").rglob("*") if path.stat().st_size > 100_000]


@pytest.mark.slow
def test_a_study_on_a_full_disk_keeps_what_was_recorded(copied: Place) -> None:
    run = copied.folder / "run"
    # Without its first line, the environment, it has to be written to.
    kept = (run / "study.jsonl").read_bytes().split(b"\n", 1)[1]
    (run / "study.jsonl").write_bytes(kept)
    for path in (run / "log.txt", *run.glob("report/*")):
        path.unlink()
    done = copied.call("pipeline", *ONNX, "--run-dir", "run", limit_file_bytes=len(kept) + 100)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (
        "run/study.jsonl: cannot be written (File too large); what was recorded before is kept" in done.stderr
    )
    records = StudyFile.load(run / "study.jsonl").records
    assert len(records) == len(kept.splitlines())
    again = copied.call("pipeline", *ONNX, "--run-dir", "run")
    assert again.returncode == 0, again.stderr
    assert StudyFile.load(run / "study.jsonl").records[: len(records)] == records
