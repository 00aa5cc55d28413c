from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError
from quant_explorer.core.measurement import Executed, Measurement, PeakMemory, Status
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.machine import counters
from quant_explorer.machine.topology import idle_cores, measuring_cores
from quant_explorer.metrics.accuracy import Scored
from quant_explorer.models import parameter_digest
from quant_explorer.pipeline import experiment as experiment_module
from quant_explorer.pipeline import scoring
from quant_explorer.pipeline.building.build import build, create_runtime
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.measure import check_precision, measure
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.scoring import balanced_order
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.timing.contender import Contender
from quant_explorer.pipeline.worker.messages import Loading, Opened
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.testing.fake_runtime import Fault
from quant_explorer.testing.toys import toy_dataset
from tests.pipeline.timing.contenders import SUBJECT, built
from tests.pipeline.toy_runs import (
    INT8,
    PROTOCOL,
    RUNTIMES,
    ImpatientWithHanging,
    exploration,
    fake,
    toy_experiment,
    toy_subject,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def measured(
    run: RunFolder,
    recipe: Recipe,
    *,
    subject: Subject | None = None,
    protocol: MeasurementProtocol = PROTOCOL,
    reference: Scored | None = None,
    fault: Fault = "",
    fault_after: int = 0,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[Measurement, Scored | None]:
    """Measure a recipe in a real worker, which may be faulty though the build was sound.

    Without a subject of its own it is built once for all tests.
    """
    runtime = create_runtime(recipe, RUNTIMES)
    if subject is None:
        subject, artifact = SUBJECT, built(recipe)
    else:
        artifact = build(recipe, Preparation(toy_experiment(run, subject)), runtime)
    options = (("fault", fault), ("fault_after", fault_after))
    artifact = Artifact(artifact.folder, replace(artifact.manifest, options=options))
    blank = exploration(run, subject=subject)._blank(recipe)
    contender = Contender(artifact, runtime, blank)
    return measure(contender, toy_experiment(run, subject, protocol), reference, meanwhile=meanwhile)


def test_a_sound_variant_has_every_figure(run: RunFolder) -> None:
    subject = toy_subject()
    found, scored = measured(run, fake("fp32"), subject=subject)
    assert (found.status, found.reason) == (Status.OK, None)
    (file,) = found.files
    assert file.bytes == (run.artifacts / found.variant.digest / file.path).stat().st_size
    assert found.executed == Executed({"fp32": 3 * 16 * 16 * 4}, {"matmul.fp32": 1})
    assert found.cold_start_s[0] > 0
    assert [peak.batch_size for peak in found.memory] == [1, 4]
    assert found.predictions is not None
    assert found.predictions.positions == tuple(range(40))
    assert found.predictions.sqnr_db is None
    # The images that decide are others, and the artifact answered them too.
    assert found.search_predictions is not None
    assert found.search_predictions.positions == tuple(range(len(subject.dataset.search)))
    assert len(subject.split.search_labels) == len(subject.dataset.search) > 0
    # What is kept is what the artifact answered, of the images in their order.
    assert scored is not None
    assert found.predictions.top1 == tuple(scored.logits.argmax(1).tolist())
    alone, again = measured(run, fake("fp32"), subject=subject)
    assert again is not None
    np.testing.assert_array_equal(again.logits, scored.logits)
    assert alone.predictions == found.predictions


def test_without_a_counter_there_is_a_reason(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "POWERCAP", tmp_path / "none")
    found, _ = measured(run, fake("fp32"))
    assert found.status is Status.OK
    assert "no energy counter" in (found.energy_reason or "")


def test_nothing_else_runs_while_start_and_memory_are_measured(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Watched(Worker):
        def open(self, batch: Batch) -> Opened:
            events.append("open")
            return super().open(batch)

        def measure_memory(self, batch: Batch) -> PeakMemory:
            events.append("memory")
            return super().measure_memory(batch)

    recipe = fake("fp32")
    measured(run, recipe)
    monkeypatch.setattr(experiment_module, "Worker", Watched)
    found, _ = measured(run, recipe, meanwhile=lambda: events.append("meanwhile"))
    assert found.status is Status.OK
    assert events == ["open", "memory", "memory", "meanwhile"]


def test_a_variant_is_compared_with_the_reference(run: RunFolder) -> None:
    _, reference = measured(run, fake("fp32"))
    found, scored = measured(run, fake("int8", INT8), reference=reference)
    assert found.predictions is not None
    assert reference is not None
    assert scored is not None
    noise = ((scored.logits - reference.logits) ** 2).sum()
    expected = 10 * np.log10((reference.logits**2).sum() / noise)
    assert found.predictions.sqnr_db == pytest.approx(expected, rel=1e-4)
    assert found.executed is not None
    assert found.executed.fraction("int8") == 1.0


class Repeat(nn.Module):
    """Features repeated until there are `count`, as the fake runtime repeats those of an image."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, torch.arange(self._count) % features.shape[1]]


def test_memory_rises_from_floor_to_peak(run: RunFolder) -> None:
    model = nn.Sequential(nn.Flatten(), Repeat(200_000), nn.Linear(200_000, 4))
    subject = replace(toy_subject(), model=model, weights_digest=parameter_digest(model))
    found, _ = measured(run, fake("fp32"), subject=subject, protocol=replace(PROTOCOL, batch_sizes=(1, 16)))
    assert found.status is Status.OK
    single, sixteen = found.memory
    assert single.floor_bytes == sixteen.floor_bytes < single.loaded_bytes == sixteen.loaded_bytes
    # 200,000 features, gathered as float32 and multiplied as float64.
    assert sixteen.peak_bytes > sixteen.loaded_bytes + 16 * 200_000 * 4
    assert single.floor_bytes < single.peak_bytes < sixteen.peak_bytes


# The first call is that of opening.
@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("raise", Status.FAILED, "the fake runtime was asked to raise"),
        ("die", Status.DIED, r"the worker process died during (Open|MeasureMemory) \(signal SIGKILL"),
    ],
)
def test_a_fault_is_a_status_and_a_reason(
    run: RunFolder, fault: Fault, after: int, status: Status, reason: str
) -> None:
    found, scored = measured(run, fake("faulty"), fault=fault, fault_after=after)
    assert found.status is status
    assert re.search(reason, found.reason or "")
    assert scored is None
    assert found.predictions is None
    # What was found until then is kept.
    assert found.files
    assert bool(found.cold_start_s) == bool(after)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("nan", "outputs of 4 of 4 images are not finite"), ("wrong_shape", r"shape (4, 5), expected (4, 4)")],
)
@pytest.mark.parametrize("after", [0, 12])
def test_what_is_no_answer_never_becomes_a_figure(
    run: RunFolder, fault: Fault, reason: str, after: int
) -> None:
    found, scored = measured(run, fake("faulty"), fault=fault, fault_after=after)
    assert found.status is Status.FAILED
    assert reason in (found.reason or "")
    assert found.predictions is None
    assert scored is None


def test_a_variant_that_hangs_times_out(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment_module, "Worker", ImpatientWithHanging)
    found, _ = measured(run, fake("hangs"), fault="hang", fault_after=1)
    assert found.status is Status.TIMED_OUT
    assert "no answer to MeasureMemory within 0.2 s" in (found.reason or "")


def test_int8_that_runs_in_float_fails_its_build(run: RunFolder) -> None:
    found, _ = measured(run, fake("int8", INT8, fault="float_named_int8"))
    assert found.status is Status.BUILD_FAILED
    assert "named INT8, but its multiply-accumulates ran in fp32 100.0%" in (found.reason or "")
    assert found.predictions is None


@pytest.mark.parametrize(
    ("activations", "int8", "sound"),
    [
        ("static", 51, True),
        ("static", 50, False),
        ("static", 0, False),
        ("dynamic", 1, True),
        ("dynamic", 0, False),
    ],
)
def test_how_much_must_run_in_int8(activations: str, int8: int, sound: bool) -> None:
    spec = QuantSpec("int8", activations)  # type: ignore[arg-type]  # one of its literals
    executed = Executed({"int8": int8, "fp32": 100 - int8}, {}, ("ConvTranspose of layer 'up'",))
    if sound:
        check_precision(spec, executed)
    else:
        with pytest.raises(BuildError, match=r"named INT8.*ConvTranspose of layer 'up' in float"):
            check_precision(spec, executed)
    check_precision(QuantSpec(), executed)


def test_a_slow_variant_is_scored_on_a_balanced_seeded_subset(run: RunFolder) -> None:
    data = toy_dataset(train=64, search=8, report=240)
    subject = toy_subject(dataset=data, seed=3)
    # 12 calls of 50 ms answer the least number of images, and are over the limit long before.
    protocol = replace(PROTOCOL, batch_sizes=(1, 10), time_limit_s=0.1)
    found, _ = measured(run, fake("slow"), subject=subject, protocol=protocol, fault="slow")
    assert found.status is Status.OK
    assert found.predictions is not None
    positions = np.array(found.predictions.positions)
    assert len(positions) == len(found.predictions.top1) == 100
    expected = balanced_order(data.report.labels, 3)[:100]
    np.testing.assert_array_equal(positions, np.sort(expected))
    assert np.bincount(data.report.labels[positions]).tolist() == [25] * 4


def test_idle_cores_help_to_score(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    cores: list[tuple[int, ...]] = []

    class Watched(Worker):
        def __init__(self, loading: Loading, *, log: Path, timeout_s: float) -> None:
            cores.append(loading.cores)
            super().__init__(loading, log=log, timeout_s=timeout_s)

    monkeypatch.setattr(experiment_module, "Worker", Watched)
    monkeypatch.setattr(scoring, "HELP_PAYS_S", 1e-9)
    found, _ = measured(
        run, fake("fp32"), subject=toy_subject(), protocol=replace(PROTOCOL, time_limit_s=600)
    )
    assert found.status is Status.OK
    # The first checked its files.
    _, *of_measuring = cores
    assert sorted(of_measuring) == sorted([measuring_cores(1), *idle_cores(1)])


def test_with_time_enough_all_images_are_scored(run: RunFolder) -> None:
    protocol = replace(PROTOCOL, batch_sizes=(1, 7), time_limit_s=600)
    found, _ = measured(run, fake("fp32"), protocol=protocol)
    assert found.predictions is not None
    assert found.predictions.positions == tuple(range(40))
