from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quant_explorer.analysis.evidence import gather
from quant_explorer.core.measurement import EnergyBlock, Measurement, Round
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BASELINE, ORDINARY


def test_requested_batch_sizes_are_there_without_rounds(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", ORDINARY, Scene(batch_sizes=(1,)))
    (evidence,) = gather(study, "env-a", (1, 32))
    assert [(batch, len(timings.rounds)) for batch, timings in evidence.timings.items()] == [(1, 12), (32, 0)]


def test_records_of_other_environments_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    play(path, ORDINARY, Scene(environment="other"))
    study = play(path, (BASELINE, Played("extra", model="extra")), Scene())
    small, extra = gather(study, "env-a", (1,))
    assert (len(small.measurements), len(extra.measurements)) == (1, 1)
    assert len(small.timings[1].rounds) == 12
    assert extra.no_baseline == "the baseline fp32_baseline@eager was not measured"


def test_energy_is_of_the_rounds_where_they_have_it(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", (BASELINE, Played("int8")), Scene(rounds=3))
    environment = study.visits[-1].digest
    earlier, counted = EnergyBlock(1, 0.2, 9.0), EnergyBlock(10, 0.2, 5.0)
    (digest,) = [
        key for key, found in study.measurements(environment).items() if found.variant.config == "int8"
    ]
    study.records = [
        replace(record, energy=(earlier,))
        if isinstance(record, Measurement) and record.variant.digest == digest
        else record
        for record in study.records
    ]
    (evidence,) = gather(study, environment, (1,))
    assert evidence.energy(digest) == (earlier,)
    study.records = [
        replace(record, energy={digest: counted}) if isinstance(record, Round) else record
        for record in study.records
    ]
    (evidence,) = gather(study, environment, (1,))
    assert evidence.energy(digest) == (counted,) * 3
