from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.analysis.rank import gather_candidates
from quant_explorer.analysis.statement import Statement, state
from quant_explorer.core.errors import StudyError, UnknownNameError
from quant_explorer.testing.replay import Played, play
from tests.analysis.replayed import BROKEN, ORDINARY, RUN

NAME = "static_int8_per_tensor@eager"


def stated(folder: Path, played: tuple[Played, ...], name: str, model: str | None = None) -> Statement:
    study = play(folder / "study.jsonl", played)
    return state(gather_candidates(study, RUN), RUN, study.visits[0], name, model)


def test_a_statement_is_read_as_it_was_written(tmp_path: Path) -> None:
    statement = stated(tmp_path, ORDINARY, NAME)
    assert statement.variant.accuracy is not None
    assert statement.variant.accuracy.top1 == 0.8
    assert statement.measurement.variant.name == NAME
    (tmp_path / "statement.json").write_bytes(statement.encode())
    assert Statement.load(tmp_path / "statement.json") == statement


def test_an_unknown_variant_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'static_int8_per_tensor@eager'"):
        stated(tmp_path, ORDINARY, "static_int8_per_tensr@eager")


def test_a_failed_variant_has_its_reason(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"qat_int8@eager died: killed by signal 9 .* nothing to export"):
        stated(tmp_path, (*ORDINARY, BROKEN), BROKEN.variant.name)


def test_of_several_models_one_has_to_be_named(tmp_path: Path) -> None:
    both = (
        *ORDINARY,
        Played("fp32_baseline", model="other"),
        Played("static_int8_per_tensor", model="other"),
    )
    with pytest.raises(StudyError, match=r"--model with one of .*other"):
        stated(tmp_path, both, NAME)
    (tmp_path / "study.jsonl").unlink()
    assert stated(tmp_path, both, NAME, "other").variant.model == "other"


def test_a_statement_that_is_none_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "statement.json").write_text("{}")
    with pytest.raises(StudyError, match=r"statement\.json: not a readable statement"):
        Statement.load(tmp_path / "statement.json")
