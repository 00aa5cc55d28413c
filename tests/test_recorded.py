from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer import Study
from quant_explorer.core.errors import StudyError, UnsupportedError
from quant_explorer.testing.replay import Scene, play
from tests.analysis.replayed import BROKEN, ORDINARY, of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    play(tmp_path / "study.jsonl", (*ORDINARY, BROKEN), Scene(batch_sizes=(1, 8, 32)))
    return tmp_path


def test_a_data_frame_has_a_row_a_variant_with_units_and_ends(folder: Path) -> None:
    study = Study.load(folder)
    frame = study.to_dataframe().set_index("variant")
    assert list(frame.index) == [variant.name for variant in study.results.variants]
    variant = of(study.results, "static_int8_per_channel")
    latency, accuracy = variant.latency["32"], variant.accuracy
    assert accuracy is not None
    assert accuracy.diff_ci_pp is not None
    assert latency.p50_ci_s is not None
    row = frame.loc[variant.name]
    assert (row.size_bytes, row.latency_p50_s_batch_32) == (260_000, latency.p50_s)
    assert (row.change_pp, row.change_pp_low) == (accuracy.diff_pp, accuracy.diff_ci_pp.low)
    assert row.latency_p50_s_batch_32_high == latency.p50_ci_s.high
    assert frame.loc["qat_int8@eager"].reason == BROKEN.reason
    assert frame.isna().loc["qat_int8@eager", "change_pp"]


def test_the_file_of_the_study_is_as_good_as_its_folder(folder: Path) -> None:
    assert Study.load(folder / "study.jsonl").records.records == Study.load(str(folder)).records.records


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"study.jsonl: there is no study here"):
        Study.load(tmp_path)


def test_without_pandas_the_command_that_installs_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quant_explorer.core.host.packages.installed_version", lambda package: None)
    with pytest.raises(UnsupportedError, match=r"pip install 'quant-explorer\[dataframe\]'"):
        Study.load(folder).to_dataframe()
