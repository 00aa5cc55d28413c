"""Recorded runs without a machine: a study with a known truth, for tests of whatever reads studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import (
    Block,
    Conditions,
    Executed,
    FileSize,
    Measurement,
    Observation,
    PeakMemory,
    Predictions,
    ReportSplit,
    Round,
    Status,
    TimingEnd,
    Variant,
    twin_key,
)
from quant_explorer.core.quantspec import Precision
from quant_explorer.core.recipe import BASELINE_CONFIG, BASELINE_RUNTIME, digest_of
from quant_explorer.core.study import StudyFile

CLASSES = ("cat", "dog", "frog", "ship")
FLOOR_BYTES = 200_000_000


@dataclass(frozen=True)
class Played:
    """The truth about one variant.

    `slowness` is its latency relative to the baseline's. `wrong` is how many images it gets wrong, of
    those given by `images` (all when None), the last ones first, so that errors of two variants nest;
    `search_wrong` the same of the search split.
    `latency` False leaves it out of every round. `precision` is what was asked for, `ran_in` what all that is
    not one of the `int8_macs` of 1,000 ran in.
    """

    config: str
    slowness: float = 1.0
    wrong: int = 0
    size_bytes: int = 1_000_000
    runtime: str = BASELINE_RUNTIME
    model: str = "small_cnn"
    group: str = "all"
    images: int | None = None
    int8_macs: int = 0
    memory_bytes: int | None = 50_000_000
    status: Status = Status.OK
    reason: str | None = None
    notes: tuple[str, ...] = ()
    latency: bool = True
    steps: tuple[str, ...] = ()
    precision: Precision | None = None
    ran_in: Precision = "fp32"
    observations: tuple[Observation, ...] = ()
    search_wrong: int = 0

    @property
    def variant(self) -> Variant:
        """The variant as a study records it."""
        name = f"{self.config}@{self.runtime}"
        digest = digest_of({"name": name, "model": self.model})
        return Variant(name, self.config, self.runtime, self.model, digest)


@dataclass(frozen=True)
class Scene:
    """How a study is played: seeded, so that the same scene gives the same records.

    `base_s` is the baseline's latency of one image, `noise` the relative spread of calls, `drift` the
    relative spread that all variants of one round share, `twin` the twin's latency relative to the
    baseline's, and a variant of model "x" takes `base_s` times the batch size times its slowness. In the
    first `disturbed` rounds other work took a tenth of the measuring cores. Without `search_images` the study
    is as those were before the search split was scored.
    """

    environment: str = "env-a"
    images: int = 400
    rounds: int = 12
    calls: int = 5
    batch_sizes: tuple[int, ...] = (1, 8)
    base_s: float = 1e-3
    noise: float = 0.004
    drift: float = 0.0
    twin: float = 1.0
    trained: bool = True
    stopped_by: str = "precision"
    seed: int = 0
    disturbed: int = 0
    search_images: int = 0
    instruction_sets: tuple[str, ...] = ("avx2",)


def play(path: Path, played: Sequence[Played], scene: Scene | None = None) -> StudyFile:
    """Append the records of `played` to the study at `path` and return it.

    The first `Played` of each model is that model's baseline; it and its twin are timed in every group.
    """
    scene = scene or Scene()
    study = StudyFile.load(path)
    study.append(environment(scene.environment, scene.instruction_sets))
    study.append(split(scene.images, scene.search_images))
    for variant in played:
        study.append(measurement(variant, scene))
    generator = np.random.default_rng(scene.seed)
    for model in dict.fromkeys(variant.model for variant in played):
        _play_rounds(study, [variant for variant in played if variant.model == model], scene, generator)
    return study


def environment(digest: str, instruction_sets: tuple[str, ...] = ("avx2",)) -> Environment:
    """Return a machine that is the same for every digest but in name."""
    versions = {"torch": "2.14"}
    return Environment(
        digest, f"CPU of {digest}", instruction_sets, 2, 8_000_000_000, 1, "Linux", "3.11", versions
    )


def split(images: int, search_images: int = 0) -> ReportSplit:
    """Return a balanced report split of `images` images, with a search split of `search_images`."""
    labels, search_labels = (
        tuple(position % len(CLASSES) for position in range(count)) for count in (images, search_images)
    )
    return ReportSplit("split", "toy", CLASSES, labels, search_labels=search_labels)


def measurement(variant: Played, scene: Scene) -> Measurement:
    """Return what a study records of a variant; a failed one has no figures."""
    if variant.status is not Status.OK:
        return Measurement(
            variant.variant, scene.environment, "split", variant.status, variant.reason, notes=variant.notes
        )
    memory = tuple(
        PeakMemory(batch, FLOOR_BYTES, FLOOR_BYTES + 1, FLOOR_BYTES + variant.memory_bytes * batch)
        for batch in (min(scene.batch_sizes), max(scene.batch_sizes))
        if variant.memory_bytes is not None
    )
    return Measurement(
        variant.variant,
        scene.environment,
        "split",
        variant.status,
        files=(FileSize("model.pt", variant.size_bytes),),
        executed=Executed({"int8": variant.int8_macs, variant.ran_in: 1000 - variant.int8_macs}, {"conv": 6}),
        memory=memory,
        memory_reason=None if memory else "this kernel cannot reset the high-water mark",
        cold_start_s=(0.2, 0.1, 0.3),
        predictions=_predictions(
            variant, scene.images if variant.images is None else variant.images, variant.wrong, scene
        ),
        search_predictions=_predictions(variant, scene.search_images, variant.search_wrong, scene)
        if scene.search_images
        else None,
        notes=variant.notes,
        steps=variant.steps,
        precision=variant.precision,
        observations=variant.observations,
    )


def _predictions(variant: Played, count: int, wrong: int, scene: Scene) -> Predictions:
    labels = [position % len(CLASSES) for position in range(count)]
    top1 = tuple(
        (label + 1) % len(CLASSES) if position >= count - wrong else label
        for position, label in enumerate(labels)
    )
    sqnr_db = None if variant.config == BASELINE_CONFIG else 30.0
    return Predictions(tuple(range(count)), top1, count, scene.trained, sqnr_db)


def _play_rounds(
    study: StudyFile, played: list[Played], scene: Scene, generator: np.random.Generator
) -> None:
    baseline = played[0]
    for group in dict.fromkeys(variant.group for variant in played):
        timed = [
            variant
            for variant in played
            if variant.latency and variant.status is Status.OK and variant.group == group
        ]
        slowness = {baseline.variant.digest: 1.0, twin_key(baseline.variant.digest): scene.twin}
        slowness |= {variant.variant.digest: variant.slowness for variant in timed if variant is not baseline}
        # Each group runs at a speed of its own, so that only ratios to the baseline compare across groups.
        pace = 1.0 if group == baseline.group else 1.5
        for batch in scene.batch_sizes:
            for number in range(scene.rounds):
                level = scene.base_s * batch * pace * (1 + scene.drift * generator.standard_normal())
                calls = {
                    digest: _calls(level * factor, scene, generator) for digest, factor in slowness.items()
                }
                order = generator.permutation(list(calls)).tolist()
                blocks = tuple(Block(key, calls[key]) for key in order)
                conditions = Conditions(waiting_share=0.1 if number < scene.disturbed else 0.0)
                study.append(Round(scene.environment, group, batch, number, (blocks,), conditions=conditions))
            study.append(
                TimingEnd(scene.environment, group, batch, baseline.variant.digest, scene.stopped_by)
            )


def _calls(level_s: float, scene: Scene, generator: np.random.Generator) -> tuple[int, ...]:
    factors = 1 + scene.noise * np.abs(generator.standard_normal(scene.calls))
    return tuple(int(value) for value in level_s * 1e9 * factors)
