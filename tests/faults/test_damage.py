"""Files of a run that are cut or overwritten are named with the remedy; nothing wrong is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quant_explorer.core.study import StudyFile
from tests.cli.invoking import ONNX, Invoke, Place

RESUME = ("pipeline", *ONNX, "--run-dir", "run")
# By the command that reads it: what it says of a file of which the second half is missing.
DAMAGED = {
    "run.json": "run.json: not a readable run description",
    "weights/baseline-*.safetensors": "; delete it, and the same command makes it again",
    "artifacts/*/manifest.json": "to rebuild",
    "artifacts/*/model.onnx": "missing or changed since it was built; delete",
}


@pytest.fixture
def refused(invoke: Invoke) -> Callable[..., str]:
    """Call a command that must be refused, and return what it said on one line."""

    def call(*arguments: str | Path) -> str:
        code, printed = invoke(*arguments)
        assert code == 2, printed
        assert "Traceback" not in printed
        return " ".join(printed.split())

    return call


@pytest.mark.slow
@pytest.mark.parametrize("pattern", DAMAGED)
def test_a_file_that_is_cut_is_named_with_the_remedy(copied: Place, invoke: Invoke, pattern: str) -> None:
    run = copied.folder / "run"
    path = sorted(run.glob(pattern))[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, printed = invoke(*RESUME)
    shown = " ".join(printed.split())
    assert code in (1, 2), printed
    assert "Traceback" not in printed
    assert path.name in shown
    assert DAMAGED[pattern] in shown


@pytest.mark.slow
def test_the_remedy_for_a_damaged_study_works(
    copied: Place, refused: Callable[..., str], invoke: Invoke
) -> None:
    study = copied.folder / "run" / "study.jsonl"
    lines = study.read_text().splitlines(keepends=True)
    place = len(lines) // 2
    study.write_text("".join([*lines[:place], "not a record\n", *lines[place:]]))
    for command in (RESUME, ("report", "--run-dir", "run")):
        shown = refused(*command)
        assert f"study.jsonl:{place + 1}: not a study record" in shown
        assert "delete this line and all after it" in shown
    study.write_text("".join(lines[:place]))
    kept = StudyFile.load(study).records
    code, printed = invoke(*RESUME)
    assert code == 0, printed
    resumed = StudyFile.load(study).records
    assert resumed[:place] == kept
    assert len(resumed) >= len(lines)
