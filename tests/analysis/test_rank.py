from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import Results
from quant_explorer.core.errors import StudyError
from quant_explorer.core.measurement import Measurement, ReportSplit, Status
from quant_explorer.core.settings.declaration import decode_path
from quant_explorer.core.study import StudyFile
from quant_explorer.report.render import encode_results
from quant_explorer.testing.replay import CLASSES, Played, Scene, environment, measurement, play
from tests.analysis.replayed import BASELINE, BROKEN, ORDINARY, RUN, of, ranked


def test_a_known_ordering_is_found(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    optimal = {variant.config: variant.frontier.on_frontier for variant in results.variants}
    assert optimal == {
        "fp32_baseline": True,
        "dynamic_int8": False,
        "static_int8_per_tensor": True,
        "static_int8_per_channel": True,
    }
    beaten = of(results, "dynamic_int8").frontier
    assert set(beaten.dominated_by) == {"fp32_baseline@eager", "static_int8_per_channel@eager"}
    assert beaten.probability == 0.0
    assert of(results, "static_int8_per_tensor").frontier.probability == 1.0
    assert [objective.name for objective in results.objectives] == ["size_bytes", "latency_p50_s_b1", "top1"]


def test_figures_are_those_that_were_played(tmp_path: Path) -> None:
    variant = of(ranked(tmp_path, ORDINARY), "static_int8_per_tensor")
    assert variant.size.bytes == 250_000
    assert variant.size.ratio == 0.25
    assert variant.latency["1"].p50_s == pytest.approx(0.25e-3, rel=0.01)
    assert variant.latency["8"].p50_s == pytest.approx(2e-3, rel=0.01)
    assert variant.latency["1"].speedup == pytest.approx(4.0, rel=0.01)
    assert variant.memory.peak_bytes == {"1": 50_000_000, "8": 400_000_000}
    assert variant.cold_start_s == 0.2
    assert variant.executed.int8_mac_fraction == 0.99
    assert variant.accuracy is not None
    assert variant.accuracy.top1 == 0.8
    assert variant.accuracy.diff_pp == -10.0
    assert variant.accuracy.verdict == "loss"


def test_the_same_study_gives_the_same_results(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", ORDINARY)
    assert summarize(study, RUN) == summarize(StudyFile.load(study.path), RUN)


@pytest.mark.parametrize(
    ("incomplete", "reason"),
    [
        (Played("odd", latency=False), "no latency at batch 1: not timed"),
        (Played("odd", status=Status.UNSUPPORTED, reason="needs AVX-512"), "is not possible: needs AVX-512"),
        (BROKEN, "died: killed by signal 9"),
    ],
)
def test_a_variant_without_a_figure_is_listed_and_not_ranked(
    tmp_path: Path, incomplete: Played, reason: str
) -> None:
    results = ranked(tmp_path, (*ORDINARY, incomplete))
    odd = of(results, incomplete.config)
    assert odd.frontier.on_frontier is None
    assert odd.frontier.probability is None
    assert reason in (odd.frontier.reason or "")
    assert of(results, "static_int8_per_tensor").frontier.on_frontier is True


def test_without_size_or_predictions_there_is_no_rank(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", ORDINARY)
    whole = measurement(ORDINARY[2], Scene())
    study.append(_with(whole, "files", []))
    assert "no size" in (of(summarize(study, RUN), "static_int8_per_tensor").frontier.reason or "")
    study.append(_with(whole, "predictions", None))
    assert "no accuracy" in (of(summarize(study, RUN), "static_int8_per_tensor").frontier.reason or "")


@pytest.mark.parametrize("how", ["missing", "failed"])
def test_without_a_baseline_nothing_is_ranked(tmp_path: Path, how: str) -> None:
    lost = Played("fp32_baseline", status=Status.FAILED, reason="non-finite outputs")
    played = ORDINARY[1:] if how == "missing" else (lost, *ORDINARY[1:])
    results = ranked(tmp_path, played)
    reasons = {variant.frontier.reason for variant in results.variants if variant.status is Status.OK}
    expected = "was not measured" if how == "missing" else "@eager failed: non-finite outputs"
    assert len(reasons) == 1
    assert expected in str(reasons)
    assert results.picks == ()
    assert results.aa == ()


def test_groups_compare_through_the_baseline(tmp_path: Path) -> None:
    # The second group's rounds run at 1.5 times the duration, which is more than between the variants.
    played = (BASELINE, Played("here", slowness=0.5), Played("there", slowness=0.45, group="other"))
    results = ranked(tmp_path, played)
    here, there = of(results, "here").latency["1"], of(results, "there").latency["1"]
    assert here.p50_s is not None
    assert there.p50_s is not None
    assert there.p50_s / here.p50_s == pytest.approx(0.9, rel=0.02)
    assert there.speedup == pytest.approx(1 / 0.45, rel=0.01)
    assert of(results, "fp32_baseline").latency["1"].rounds == 24
    assert {check.group for check in results.aa} == {"all", "other"}
    # Ranked by ratios: `there` is the faster of two that are otherwise equal.
    assert of(results, "there").frontier.probability == 1.0
    assert of(results, "here").frontier.on_frontier is False


def test_a_lucky_subset_ranks_nobody_higher(tmp_path: Path) -> None:
    # The baseline's 40 errors lie outside the first 100 images, on which the slow variant is perfect.
    slow = Played("slow", slowness=3.0, wrong=0, images=100, size_bytes=2_000_000)
    results = ranked(tmp_path, (*ORDINARY, slow))
    place, accuracy = of(results, "slow").frontier, of(results, "slow").accuracy
    assert accuracy is not None
    assert (accuracy.top1, accuracy.images, accuracy.verdict) == (1.0, 100, "tie")
    assert place.on_frontier is False
    assert "fp32_baseline@eager" in place.dominated_by


def test_an_untrained_model_is_ranked_by_agreement(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY, Scene(trained=False))
    baseline, channel = of(results, "fp32_baseline"), of(results, "static_int8_per_channel")
    assert [variant.accuracy for variant in results.variants] == [None] * 4
    assert "not trained" in baseline.reasons["accuracy"]
    assert baseline.agreement is not None
    assert baseline.agreement.top1_agreement == 1.0
    assert baseline.agreement.sqnr_db is None
    assert channel.agreement is not None
    assert channel.agreement.top1_agreement == pytest.approx(1 - 2 / 400)
    assert channel.agreement.sqnr_db == 30.0
    assert results.objectives[2].name == "top1_agreement"
    assert baseline.frontier.on_frontier is True


def test_environments_are_never_ranked_together(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    play(path, ORDINARY, Scene(environment="whole"))
    # Far faster there: in one ranking it would dominate what "whole" measured.
    study = play(path, ORDINARY[:2], Scene(environment="partial", base_s=1e-5))
    partial = summarize(study, RUN)
    (whole,) = partial.others
    assert (partial.environment.digest, whole.environment.digest) == ("partial", "whole")
    assert (len(partial.variants), len(whole.variants)) == (2, 4)
    assert of(whole, "fp32_baseline").frontier.on_frontier is True
    assert of(whole, "fp32_baseline").latency["1"].p50_s == pytest.approx(1e-3, rel=0.02)
    assert "environment whole too" in partial.distrust[0]
    assert "CPU CPU of whole there, CPU of partial here" in partial.distrust[0]
    assert "environment partial too" in whole.distrust[0]


def environments(results: Results) -> list[str]:
    return [other.environment.digest for other in (results, *results.others)]


def test_the_environment_begun_last_is_first(tmp_path: Path) -> None:
    """Also where nothing was left to measure in it."""
    path = tmp_path / "study.jsonl"
    play(path, ORDINARY, Scene(environment="old"))
    study = play(path, ORDINARY, Scene(environment="new"))
    assert environments(summarize(study, RUN)) == ["new", "old"]
    study.append(environment("old"))
    assert environments(summarize(study, RUN)) == ["old", "new"]


def test_more_threads_come_behind_those_that_were_asked_for_and_are_no_reason_for_distrust(
    tmp_path: Path,
) -> None:
    path = tmp_path / "study.jsonl"
    quiet = summarize(play(path, ORDINARY), RUN).distrust
    two_threads = replace(environment("env-a"), digest="wider", threads=2)
    study = StudyFile.load(path)
    study.append(two_threads)
    for variant in ORDINARY[:2]:
        study.append(measurement(variant, Scene(environment="wider")))
    first = summarize(study, RUN)
    (second,) = first.others
    assert (first.environment.threads, second.environment.threads) == (1, 2)
    assert first.distrust == quiet
    asked_for_two = replace(RUN, protocol=replace(RUN.protocol, threads=2))
    assert summarize(study, asked_for_two).environment == two_threads


def test_models_are_ranked_within_themselves(tmp_path: Path) -> None:
    other = [Played("fp32_baseline", slowness=1, model="big"), Played("odd", slowness=2, model="big")]
    results = ranked(tmp_path, (*ORDINARY, *other))
    assert results.models == ("small_cnn", "big")
    big = {variant.config: variant.frontier for variant in results.of_model("big")}
    assert big["fp32_baseline"].on_frontier is True
    assert big["odd"].dominated_by == ("fp32_baseline@eager",)
    assert {pick.model for pick in results.picks} == {"small_cnn", "big"}


def test_the_latest_measurement_of_a_name_counts(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", (*ORDINARY, BROKEN))
    study.append(measurement(Played("qat_int8", wrong=1), Scene()))
    qat = of(summarize(study, RUN), "qat_int8")
    assert qat.status is Status.OK
    assert qat.accuracy is not None


@pytest.mark.parametrize("scene", [Scene(rounds=1, calls=1), Scene(), Scene(trained=False), Scene(rounds=0)])
def test_every_missing_figure_has_a_reason_and_none_is_nan(tmp_path: Path, scene: Scene) -> None:
    gpu = Played("gpu", status=Status.UNSUPPORTED, reason="no GPU", runtime="cuda")
    partial = Played("partial", images=3, memory_bytes=None, latency=False, runtime="other")
    results = ranked(tmp_path, (*ORDINARY, BROKEN, gpu, partial), scene)
    document = json.loads(encode_results(results), parse_constant=_reject)
    # What was asked for is no figure: null is a setting of its own there.
    del document["run"]
    checked = _check_reasons(document)
    assert checked > 20


def test_an_empty_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no measurements"):
        summarize(StudyFile.load(tmp_path / "none.jsonl"), RUN)


def test_an_undescribed_environment_is_refused(tmp_path: Path) -> None:
    study = StudyFile(tmp_path / "study.jsonl")
    study.append(environment("known"))
    study.append(measurement(BASELINE, Scene(environment="unknown")))
    with pytest.raises(StudyError, match="unknown environment 'unknown'"):
        summarize(study, RUN)


def test_predictions_without_labels_are_no_accuracy(tmp_path: Path) -> None:
    study = StudyFile(tmp_path / "study.jsonl")
    study.append(environment("env-a"))
    study.append(measurement(BASELINE, Scene()))
    results = summarize(study, RUN)
    assert "no labels of the report split" in results.variants[0].reasons["accuracy"]


def _with(whole: Measurement, name: str, value: object) -> Measurement:
    return msgspec.convert({**msgspec.to_builtins(whole), name: value}, Measurement)


def _reject(constant: str) -> float:
    raise AssertionError(f"{constant} in a results document")


def _check_reasons(value: object) -> int:
    """Count the nulls below `value`; each must have a reason beside it."""
    if isinstance(value, list):
        return sum(_check_reasons(element) for element in value)
    if not isinstance(value, dict):
        return 0
    nulls = [name for name, element in value.items() if element is None and name != "reason"]
    for name in nulls:
        explained = value.get("reason") if "on_frontier" in value else value["reasons"].get(name)
        assert explained, f"{name} is null without a reason in {value}"
    return len(nulls) + sum(_check_reasons(element) for element in value.values())


def test_the_reason_check_can_fail() -> None:
    with pytest.raises(AssertionError, match="p50_s is null"):
        _check_reasons([{"p50_s": None, "reasons": {}}])


def test_a_document_is_a_results_value(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    assert msgspec.json.decode(encode_results(results), type=Results, dec_hook=decode_path) == results


def test_another_report_split_is_not_compared(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", ORDINARY)
    study.append(ReportSplit("elsewhere", "toy", CLASSES, (0,) * 400))
    study.append(_with(measurement(ORDINARY[2], Scene()), "split", "elsewhere"))
    moved = of(summarize(study, RUN), "static_int8_per_tensor")
    assert moved.accuracy is not None
    assert moved.accuracy.verdict is None
    assert "other images than the baseline" in (moved.frontier.reason or "")


def test_agreement_is_of_the_same_images(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", ORDINARY, Scene(trained=False))
    study.append(ReportSplit("elsewhere", "toy", CLASSES, (0,) * 400))
    study.append(_with(measurement(ORDINARY[2], Scene(trained=False)), "split", "elsewhere"))
    moved = of(summarize(study, RUN), "static_int8_per_tensor")
    assert moved.agreement is None
    assert moved.reasons["agreement"] == "it shares no image with the baseline"
