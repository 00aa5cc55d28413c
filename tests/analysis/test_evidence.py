from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.analysis.evidence import gather
from quant_explorer.core.measurement import EnergyBlock, Measurement, Round, Status, TimingGroup
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


IMPOSSIBLE = replace(BASELINE, status=Status.UNSUPPORTED, reason="it is an ONNX file")
UNBUILT = replace(BASELINE, status=Status.BUILD_FAILED, reason="off by 0.3")
SERVED = Played("fp32_baseline", runtime="served")


@pytest.mark.parametrize(
    ("own", "why"),
    [(IMPOSSIBLE, "is not possible: it is an ONNX file"), (UNBUILT, "could not be built: off by 0.3")],
)
def test_fp32_of_another_runtime_stands_in_where_the_baseline_cannot_be(
    tmp_path: Path, own: Played, why: str
) -> None:
    study = play(tmp_path / "study.jsonl", (own, Played("small", slowness=0.5), SERVED), Scene())
    (evidence,) = gather(study, "env-a", (1,))
    assert evidence.baseline_name == "fp32_baseline@served"
    assert evidence.stand_in == (
        "All ratios and differences of small_cnn are against fp32_baseline@served, as fp32_baseline@eager "
        f"{why}."
    )


def test_of_several_the_one_that_was_timed_against_stands_in(tmp_path: Path) -> None:
    other = Played("fp32_baseline", runtime="other")
    study = play(tmp_path / "study.jsonl", (IMPOSSIBLE, SERVED, other), Scene())
    environment, digests = "env-a", (SERVED.variant.digest, other.variant.digest)
    study.append(TimingGroup(environment, digests[1], "g", digests))
    assert gather(study, environment, (1,))[0].baseline_name == "fp32_baseline@other"


def test_nothing_stands_in_for_a_baseline_that_another_try_may_give(tmp_path: Path) -> None:
    died = replace(BASELINE, status=Status.DIED, reason="killed")
    (evidence,) = gather(play(tmp_path / "study.jsonl", (died, SERVED), Scene()), "env-a", (1,))
    assert evidence.baseline is None
    assert evidence.no_baseline == "the baseline fp32_baseline@eager died: killed"


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
