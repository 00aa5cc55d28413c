from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.core.cost.records import FloatModel, MachinePeaks
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.progress import Progress, Silent
from quant_explorer.core.recipe import Step
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline import inspect
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.inspect import inspect_machine, inspect_models
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.techniques import create_step
from quant_explorer.testing.toys import toy_model
from tests.pipeline.toy_runs import ENVIRONMENT, INT8, fake, toy_experiment, toy_subject

PRUNE = create_step("prune", ratio=0.25)
FINE_TUNE = create_step("fine_tune")


def inspected(folder: Path, *recipes: tuple[Step, ...]) -> StudyFile:
    run = RunFolder(folder)
    study = StudyFile.load(run.study)
    preparation = Preparation(toy_experiment(run, toy_subject(model=toy_model())))
    inspect_models([fake(str(number), *steps) for number, steps in enumerate(recipes)], preparation, study)
    return study


def models(study: StudyFile) -> dict[tuple[str, ...], FloatModel]:
    return {record.steps: record for record in study.records if isinstance(record, FloatModel)}


def test_a_model_is_counted_for_each_shape_and_nothing_is_trained_for_it(tmp_path: Path) -> None:
    study = inspected(tmp_path, (), (INT8,), (PRUNE,), (PRUNE, FINE_TUNE), (PRUNE, FINE_TUNE, INT8))
    found = models(study)
    assert list(found) == [(), ("prune(ratio=0.25)",)]
    full, pruned = found.values()
    assert pruned.cost.macs < full.cost.macs
    assert full.channels is None
    assert pruned.channels is not None
    assert pruned.channels[1] < pruned.channels[0]
    assert not (tmp_path / "weights").exists()


def test_a_variant_finds_the_model_it_was_made_of(tmp_path: Path) -> None:
    study = inspected(tmp_path, (), (PRUNE, FINE_TUNE, INT8))
    pruned = study.float_model("toy", ("prune(ratio=0.25)", "fine_tune()", "static_int8()"))
    assert pruned is not None
    assert pruned.channels is not None
    plain = study.float_model("toy", ("static_int8()",))
    assert plain is not None
    assert plain.channels is None
    assert study.float_model("another", ()) is None


def test_what_the_study_knows_is_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inspected(tmp_path, (), (PRUNE,)).records
    monkeypatch.setattr(inspect, "analyze_model", None)
    assert inspected(tmp_path, (), (PRUNE,)).records == before


def test_a_model_that_cannot_be_pruned_is_left_to_its_build(tmp_path: Path) -> None:
    assert list(models(inspected(tmp_path, (), (create_step("prune", importance="l3"),)))) == [()]


def test_peaks_are_recorded_once_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    peaks = Peaks(2, {"fp32": 1.0}, 2.0)

    def measure(threads: int, progress: Progress, folder: Path) -> Peaks:
        asked.append(threads)
        return peaks

    monkeypatch.setattr(inspect, "load_or_measure", measure)
    study = StudyFile.load(tmp_path / "study.jsonl")
    for _ in range(2):
        inspect_machine(study, ENVIRONMENT, Silent())
    assert asked == [ENVIRONMENT.threads]
    assert StudyFile.load(tmp_path / "study.jsonl").records == [MachinePeaks("here", peaks)]
    assert study.peaks("here") == peaks
    assert study.peaks("elsewhere") is None
