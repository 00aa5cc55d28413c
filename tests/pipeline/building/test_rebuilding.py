"""A run folder that an older version worked in: what is made again, is said to be, and stands in a report."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import quant_explorer
from quant_explorer.core.artifact import MANIFEST
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Measurement
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.explore import Outcome, Until
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.training import schedule
from quant_explorer.techniques import create_step, qat
from quant_explorer.testing.fake_runtime import FakeRuntime
from tests.pipeline.toy_runs import ENVIRONMENT, INT8, Watching, exploration, fake, toy_subject

FP32 = fake("fp32_baseline")
STATIC = fake("static_int8", INT8)
TUNED = fake("tuned", create_step("fine_tune"))
NOW = quant_explorer.__version__


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def explored(
    run: RunFolder, *recipes: Recipe, until: Until = Until.MEASURED, environment: Environment = ENVIRONMENT
) -> tuple[Outcome, list[str]]:
    """Return the outcome, and the messages about work that is done again."""
    watching = Watching(lambda label, done, note: None)
    ready = replace(exploration(run, subject=toy_subject(progress=watching)), environment=environment)
    outcome = ready.explore(recipes, until=until)
    return outcome, [line for line in watching.messages if " again: " in line]


def digests(outcome: Outcome) -> list[str]:
    return [contender.digest for contender in outcome.contenders]


def shown(run: RunFolder, environment: Environment = ENVIRONMENT) -> dict[str, str]:
    """What a table has of each name: the latest."""
    records = StudyFile.load(run.study).records
    measurements = [record for record in records if isinstance(record, Measurement)]
    return {
        measurement.variant.name: measurement.variant.digest
        for measurement in measurements
        if measurement.environment == environment.digest
    }


def test_what_an_older_version_made_is_made_again_and_why_is_reported_once(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = replace(ENVIRONMENT, digest="newer", protocol=1, versions={"torch": "2.14"})
    with monkeypatch.context() as older:
        older.setattr(quant_explorer, "__version__", "0.0.9")
        first, messages = explored(run, FP32, STATIC)
        assert messages == []
    monkeypatch.setattr(FakeRuntime, "version", FakeRuntime.version + 1)
    monkeypatch.setattr(FakeRuntime, "cpu_features", lambda self: ("VNNI",))
    second, messages = explored(run, FP32, STATIC, environment=newer)
    assert messages == [
        f"Building 2 variants again: quant-explorer 0.0.9 is now {NOW}; lowering of fake 1 is now 2; "
        "CPU features none is now VNNI.",
        "Measuring 2 variants again: torch (not recorded) is now 2.14; measuring protocol (not recorded) "
        "is now 1.",
    ]
    assert not second.failed
    assert not set(digests(first)) & set(digests(second))
    assert list(shown(run, newer).values()) == digests(second)
    assert explored(run, FP32, STATIC, environment=newer)[1] == []


def test_a_folder_from_before_any_version_was_recorded_goes_on(run: RunFolder) -> None:
    first, _ = explored(run, FP32)
    (folder,) = run.artifacts.iterdir()
    manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    for field in ("lowering", "cpu", "target", "preprocessing"):
        del manifest["provenance"][field]
    del manifest["needs"]
    manifest["provenance"]["versions"] = []
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    folder.rename(run.artifacts / "0123456789abcdef")
    # And one that this version cannot read is no reason to stop.
    (run.artifacts / "of-another-schema").mkdir()
    (run.artifacts / "of-another-schema" / MANIFEST).write_text("{}")
    second, messages = explored(run, FP32)
    (line,) = messages
    assert line.startswith("Building 1 variant again: ")
    assert f"quant-explorer (not recorded) is now {NOW}" in line
    assert "lowering of fake (not recorded) is now 1" in line
    assert "preprocessing changed" in line
    assert digests(second) == digests(first)


def test_other_parameters_are_another_recipe_and_nothing_is_reported(run: RunFolder) -> None:
    explored(run, STATIC)
    per_channel = fake("static_int8", create_step("static_int8", granularity="per_channel"))
    assert explored(run, per_channel, until=Until.BUILT)[1] == []


def test_more_threads_are_no_other_version(run: RunFolder) -> None:
    explored(run, FP32)
    assert explored(run, FP32, environment=replace(ENVIRONMENT, digest="wider", threads=2))[1] == []


def test_fine_tuned_weights_of_another_version_are_trained_again(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert explored(run, TUNED, until=Until.BUILT)[1] == []
    monkeypatch.setattr(schedule, "TRAINING_VERSION", schedule.TRAINING_VERSION + 1)
    messages = explored(run, TUNED, until=Until.BUILT)[1]
    assert messages == [
        "Fine-tuning 1 model again: training code 1 is now 2.",
        "Building 1 variant again: fine-tuning changed.",
    ]
    assert len(list(run.weights.glob("fine_tune-*.safetensors"))) == 2
    assert explored(run, TUNED, until=Until.BUILT)[1] == []
    for origin in run.weights.glob("*.origin.json"):
        origin.unlink()
    monkeypatch.setattr(schedule, "TRAINING_VERSION", schedule.TRAINING_VERSION + 1)
    messages = explored(run, TUNED, until=Until.BUILT)[1]
    assert messages[0] == "Fine-tuning 1 model again: what is here does not say how it was made."


@pytest.mark.parametrize(
    ("name", "found", "change"),
    [
        ("package_versions", {"torchao": "99"}, r"torchao \S+ is now 99"),
        ("_explain_missing_fx", "gone", "torch.ao.quantization available is now missing"),
    ],
)
def test_weights_are_trained_again_when_another_library_simulates_int8(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str, found: object, change: str
) -> None:
    pytest.importorskip("torchao")
    trained = Recipe("qat_int8", (INT8, create_step("qat")), "eager")
    assert explored(run, trained, until=Until.BUILT)[1] == []
    monkeypatch.setattr(qat, name, lambda *packages: found)
    weights, artifact = explored(run, trained, until=Until.BUILT)[1]
    assert re.fullmatch(f"Fine-tuning 1 model again: {change}.", weights)
    assert re.fullmatch(f"Building 1 variant again: {change}.", artifact)
    assert explored(run, trained, until=Until.BUILT)[1] == []


def test_back_at_an_earlier_version_its_figures_are_shown_again(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured, and no table has the other version's row in its place."""
    first, _ = explored(run, FP32, STATIC)
    with monkeypatch.context() as other:
        other.setattr(FakeRuntime, "cpu_features", lambda self: ("VNNI",))
        explored(run, FP32, STATIC)
        assert list(shown(run).values()) != digests(first)
    again, messages = explored(run, FP32, STATIC)
    assert messages == []
    assert [contender.measurement for contender in again.contenders] == [
        contender.measurement for contender in first.contenders
    ]
    assert list(shown(run).values()) == digests(first)
    before = run.study.read_bytes()
    explored(run, FP32, STATIC)
    assert run.study.read_bytes() == before
