from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Batch, Candidate, Lowering, Runtime
from quant_explorer.core.errors import BuildError, StudyError, UnsupportedError, WorkerError
from quant_explorer.core.recipe import ParameterValue, Recipe
from quant_explorer.pipeline import experiment as experiment_module
from quant_explorer.pipeline.building.build import build, create_runtime, provenance_of
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.building.simulation import Simulation
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker.messages import Loading, Opened
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.techniques import create_step
from quant_explorer.testing.fake_runtime import FakeRuntime
from quant_explorer.testing.reference import differences
from quant_explorer.testing.toys import toy_dataset, toy_model
from tests.pipeline.toy_runs import INT8, RUNTIMES, fake, scaled, toy_experiment, toy_subject

QAT = (create_step("static_int8"), create_step("qat", epochs=1))
SUBJECT = toy_subject()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def built(run: RunFolder, recipe: Recipe, subject: Subject = SUBJECT) -> Artifact:
    return build(recipe, Preparation(toy_experiment(run, subject)), create_runtime(recipe, RUNTIMES))


def digest(recipe: Recipe, subject: Subject = SUBJECT, runtime: Runtime | None = None) -> str:
    return recipe.digest(provenance_of(recipe, subject, runtime or create_runtime(recipe, RUNTIMES)))


def test_an_artifact_says_what_it_is_and_how_it_was_made(run: RunFolder) -> None:
    recipe = fake("int8", INT8)
    artifact = built(run, recipe)
    artifact.verify()
    assert artifact.folder == run.artifacts / digest(recipe)
    manifest = artifact.manifest
    assert manifest.recipe == recipe
    assert manifest.provenance.weights == SUBJECT.weights_digest
    assert (manifest.spec.precision, manifest.spec.activations) == ("int8", "static")
    assert manifest.input == SUBJECT.spec
    assert manifest.classes == SUBJECT.dataset.classes
    assert [file.path for file in manifest.files] == ["linear.npz"]
    assert dict(manifest.options) == {"fault": "", "fault_after": 0}


def test_the_worker_that_checks_the_files_loads_while_they_are_made(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Watched(Worker):
        def __init__(self, loading: Loading, *, log: Path, timeout_s: float) -> None:
            super().__init__(loading, log=log, timeout_s=timeout_s)
            events.append("started")

        def open(self, batch: Batch) -> Opened:
            """Open what was assigned."""
            events.append("asked")
            return super().open(batch)

    lower = FakeRuntime.lower

    def watched(
        runtime: FakeRuntime, candidate: Candidate, calibration: Sequence[Batch], folder: Path
    ) -> Lowering:
        events.append("lowered")
        return lower(runtime, candidate, calibration, folder)

    monkeypatch.setattr(experiment_module, "Worker", Watched)
    monkeypatch.setattr(FakeRuntime, "lower", watched)
    built(run, fake("int8", INT8))
    assert events == ["started", "lowered", "asked"]


def test_it_is_built_once(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = built(run, fake("int8", INT8))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was built or checked again")

    monkeypatch.setattr(FakeRuntime, "lower", refuse)
    monkeypatch.setattr(experiment_module, "Worker", refuse)
    assert built(run, fake("int8", INT8)) == first
    # Under another name it is the same artifact.
    assert built(run, fake("another name", INT8)).folder == first.folder


def test_the_model_is_left_as_it_was(run: RunFolder) -> None:
    subject = toy_subject(model=toy_model())
    built(run, Recipe("qat_int8", QAT, "eager"), subject)
    built(run, Recipe("static", (INT8,), "eager"), subject)
    assert differences(toy_model(), subject.model) == []


def test_a_changed_file_is_found(run: RunFolder) -> None:
    artifact = built(run, fake("fp32"))
    (artifact.folder / "linear.npz").write_bytes(b"something else")
    with pytest.raises(StudyError, match=r"linear\.npz: missing or changed since it was built"):
        built(run, fake("fp32"))


def test_what_the_runtime_cannot_do_is_a_reason(run: RunFolder) -> None:
    with pytest.raises(UnsupportedError, match="fake lowers fp32 and calibrated static int8"):
        built(run, fake("dynamic", create_step("dynamic_int8")))
    assert not run.artifacts.exists()


def test_a_runtime_that_is_not_there_is_a_reason(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask_library(self: FakeRuntime) -> tuple[str, ...]:
        raise ModuleNotFoundError("No module named 'fake'")

    monkeypatch.setattr(FakeRuntime, "unavailable", lambda self: "pip install fake")
    monkeypatch.setattr(FakeRuntime, "cpu_features", ask_library)
    with pytest.raises(UnsupportedError, match="pip install fake"):
        built(run, fake("fp32"))


def test_a_build_that_fails_leaves_nothing_behind(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FakeRuntime, candidate: Candidate, calibration: object, folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        raise BuildError("not what it should be")

    monkeypatch.setattr(FakeRuntime, "lower", fail)
    with pytest.raises(BuildError, match="not what it should be"):
        built(run, fake("fp32"))
    assert list(run.artifacts.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "factor", "figure"),
    [
        (fake("fp32"), 1.0002, "off by 0.0002 of the largest logit; 0.0001 is allowed"),
        (fake("fp32"), 0.0, "off by 1 of the largest logit"),
        (fake("int8", INT8), 0.2, "the outputs have 1.9 dB .* at most 9 dB"),
        (fake("int8", INT8), -1.0, "the outputs have -6.0 dB"),
        (
            fake("int8", INT8),
            0.95,
            r"25.9 dB .* simulation of the same quantization has \d\d.\d dB; at most 9 dB",
        ),
        (
            fake("int8", INT8),
            0.95,
            r"still off with all layers in float, so the fault is in an operator that is no layer",
        ),
    ],
)
def test_a_lowering_that_computes_something_else_fails_with_the_figure(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, factor: float, figure: str
) -> None:
    monkeypatch.setattr(FakeRuntime, "lower", scaled(factor))
    with pytest.raises(BuildError, match=figure):
        built(run, recipe)
    assert list(run.artifacts.iterdir()) == []


@pytest.mark.parametrize(("recipe", "factor"), [(fake("fp32"), 1.00005), (fake("int8", INT8), 0.995)])
def test_a_lowering_may_be_a_little_off(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, factor: float
) -> None:
    monkeypatch.setattr(FakeRuntime, "lower", scaled(factor))
    assert built(run, recipe).folder.is_dir()


def test_both_figures_are_noted(run: RunFolder) -> None:
    figure = r"\d\d\.\d dB \(\d\d\.\d dB\)"
    (note,) = built(run, fake("int8", INT8)).manifest.notes
    assert re.search(f": {figure} on calibration images, {figure} on nearly white ones, ", note)
    assert built(run, fake("fp32")).manifest.notes == ()


@pytest.mark.parametrize("layer", ["0", "4", "9"])
def test_the_layer_that_is_lowered_wrongly_is_named(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    lower = Eager.lower

    def lower_wrongly(
        self: Eager, candidate: Candidate, calibration: Sequence[Batch], folder: Path
    ) -> Lowering:
        model = copy.deepcopy(candidate.model)
        if layer not in candidate.spec.float_layers:
            model.get_parameter(f"{layer}.weight").data.mul_(0.5)
        return lower(self, replace(candidate, model=model), calibration, folder)

    monkeypatch.setattr(Eager, "lower", lower_wrongly)
    subject = toy_subject(model=toy_model())
    with pytest.raises(BuildError, match=f"It is layer '{layer}': with it in float"):
        built(run, Recipe("static", (INT8,), "eager"), subject)
    assert list(run.artifacts.iterdir()) == []


def test_the_simulation_is_shared_by_runtimes(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Simulation] = []
    begin = Simulation.__init__

    def counted(self: Simulation, *arguments: object) -> None:
        made.append(self)
        begin(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Simulation, "__init__", counted)
    preparation = Preparation(toy_experiment(run, SUBJECT))
    for recipe in (fake("int8", INT8), Recipe("int8", (INT8,), "eager")):
        build(recipe, preparation, create_runtime(recipe, RUNTIMES))
    assert len(made) == 1


def test_trained_weights_are_what_the_lowering_is_checked_against(run: RunFolder) -> None:
    fine_tuned = fake("fine_tuned", create_step("fine_tune", epochs=2))
    assert built(run, fine_tuned).manifest.spec.precision == "fp32"
    trained = Preparation(toy_experiment(run, SUBJECT)).candidate(fine_tuned.steps).model
    assert differences(SUBJECT.model, trained) != []


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, r"No such file .*linear\.npz"), (b"garbage", "Error: .*pickle")],
)
def test_files_that_cannot_be_opened_are_no_artifact(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    def lower(self: FakeRuntime, candidate: Candidate, calibration: object, folder: Path) -> Lowering:
        if content is not None:
            (folder / "linear.npz").write_bytes(content)
        return Lowering((), ())

    monkeypatch.setattr(FakeRuntime, "lower", lower)
    with pytest.raises(WorkerError, match=reason):
        built(run, fake("fp32"))
    assert list(run.artifacts.iterdir()) == []


class AnotherVersion(FakeRuntime):
    """The same runtime, made by another library."""

    def versions(self) -> dict[str, str]:
        """Return a version that never was."""
        return {"numpy": "99.0"}


OTHER_DATA = toy_dataset(train=64, search=8, report=40, seed=1)
OPTIONS: Mapping[str, ParameterValue] = {"fault": "slow"}


@pytest.mark.parametrize(
    ("other", "subject"),
    [
        (fake("fp32"), SUBJECT),
        (fake("int8", create_step("static_int8", granularity="per_channel")), SUBJECT),
        (fake("int8", create_step("static_int8", granularity="per_tensor", observer="minmax")), SUBJECT),
        (fake("int8", INT8, **OPTIONS), SUBJECT),
        (Recipe("int8", (INT8,), "eager"), SUBJECT),
        (fake("int8", INT8), toy_subject(model_seed=1)),
        (fake("int8", INT8), toy_subject(dataset=OTHER_DATA)),
        (fake("int8", INT8), replace(SUBJECT, model_name="another")),
    ],
    ids=["steps", "parameter", "observer", "option", "runtime", "weights", "data", "model"],
)
def test_a_digest_depends_on_all_that_decides_the_files(other: Recipe, subject: Subject) -> None:
    assert digest(other, subject) != digest(fake("int8", INT8))


def test_a_digest_depends_on_the_libraries_that_make_the_files() -> None:
    assert digest(fake("int8", INT8), runtime=AnotherVersion()) != digest(fake("int8", INT8))


def test_a_digest_depends_on_nothing_else() -> None:
    same = {
        digest(fake("int8", INT8)),
        digest(fake("another name", INT8)),
        digest(fake("int8", create_step("static_int8", granularity="per_tensor", observer="histogram"))),
        digest(fake("int8", INT8), toy_subject()),
        # The seed decides weights and calibration images, and those are covered themselves.
        digest(fake("int8", INT8), toy_subject(seed=1)),
    }
    assert len(same) == 1


def test_the_seed_is_part_of_what_is_trained() -> None:
    qat = Recipe("qat_int8", QAT, "eager")
    assert digest(qat, toy_subject(seed=1)) != digest(qat)
