"""Evidence: the records of one model in one environment, joined so that figures can be derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from quant_explorer.analysis.accuracy import Hits, find_hits, why_unscored
from quant_explorer.analysis.latency import Timings, collect_timings
from quant_explorer.core.measurement import (
    EnergyBlock,
    Measurement,
    ReportSplit,
    Round,
    Status,
    TimingEnd,
    TimingGroup,
)
from quant_explorer.core.recipe import BASELINE, BASELINE_CONFIG
from quant_explorer.core.study import StudyFile
from quant_explorer.stats.intervals import CONFIDENCE


@dataclass(frozen=True)
class Evidence:
    """What was observed of one model in one environment.

    A variant that failed keeps its files and what it executed, which may tell why, and no other figure.
    `baseline` is the measurement all others are compared with, None when there is no sound one; then
    `no_baseline` says why. Where `eager` cannot have the model it is the FP32 of another runtime, and
    `stand_in` says so. `timings` is keyed by batch size; `hits` by digest holds those that were scored,
    `search_hits` those that were also scored on the search split, whose images decide.
    """

    model: str
    measurements: tuple[Measurement, ...]
    baseline: Measurement | None
    no_baseline: str
    timings: dict[int, Timings]
    ends: tuple[TimingEnd, ...]
    hits: dict[str, Hits]
    splits: dict[str, ReportSplit]
    confidence: float = CONFIDENCE
    search_hits: dict[str, Hits] = field(default_factory=dict)
    stand_in: str = ""

    @property
    def baseline_name(self) -> str:
        """The name of the variant that ratios are against."""
        return self.baseline.variant.name if self.baseline else BASELINE

    @property
    def trained(self) -> bool:
        """Whether the model was trained on the data, so that it has an accuracy."""
        known = [
            measurement.predictions.trained for measurement in self.measurements if measurement.predictions
        ]
        return all(known)

    @property
    def baseline_digest(self) -> str | None:
        """The digest of the baseline, None where there is no sound one."""
        return self.baseline.variant.digest if self.baseline else None

    @property
    def baseline_hits(self) -> Hits | None:
        """What the baseline got right, None when it was not scored."""
        return self.hits.get(self.baseline.variant.digest) if self.baseline else None

    def fp32_digest(self, runtime: str) -> str | None:
        """The digest of the FP32 baseline of one runtime, None when it was not measured."""
        for measurement in self.measurements:
            if measurement.variant.config == BASELINE_CONFIG and measurement.variant.runtime == runtime:
                return measurement.variant.digest if measurement.status is Status.OK else None
        return None

    def energy(self, digest: str) -> tuple[EnergyBlock, ...]:
        """The blocks of calls whose energy was counted, of one variant: one a round, at batch 1."""
        timings = self.timings.get(1)
        if timings is not None:
            counted = tuple(round_.energy[digest] for round_ in timings.rounds if digest in round_.energy)
            if counted:
                return counted
        return next(
            (measurement.energy for measurement in self.measurements if measurement.variant.digest == digest),
            (),
        )

    def is_baseline(self, measurement: Measurement) -> bool:
        """Whether `measurement` is the one that all others are compared with."""
        return self.baseline is not None and measurement.variant == self.baseline.variant

    def same_split(self, digest: str) -> bool:
        """Whether the variant `digest` was scored on the report split the baseline was scored on."""
        return self.baseline is not None and self.split_of(digest) == self.baseline.split

    def split_of(self, digest: str) -> str:
        """The digest of the report split that the variant `digest` was scored on."""
        return next(
            measurement.split for measurement in self.measurements if measurement.variant.digest == digest
        )


def gather(
    study: StudyFile, environment: str, batch_sizes: Sequence[int], confidence: float = CONFIDENCE
) -> tuple[Evidence, ...]:
    """Join the records of one environment, one Evidence a model, in the order first seen.

    Of several measurements with one name the latest counts. `batch_sizes` are those that were asked for;
    others that were timed are there too. `confidence` is that of the intervals that will be derived.
    """
    latest: dict[tuple[str, str], Measurement] = {}
    for record in study.records:
        if isinstance(record, Measurement) and record.environment == environment:
            sound = record.status is Status.OK
            latest[record.variant.model, record.variant.name] = record if sound else _without_figures(record)
    models = dict.fromkeys(model for model, _ in latest)
    timed = [
        round_ for round_ in study.records if isinstance(round_, Round) and round_.environment == environment
    ]
    rounds = {
        batch: [round_ for round_ in timed if round_.batch_size == batch]
        for batch in sorted({*batch_sizes, *(round_.batch_size for round_ in timed)})
    }
    ends = study.timing_ends(environment)
    compared = [
        record.baseline
        for record in study.records
        if isinstance(record, TimingGroup) and record.environment == environment
    ]
    return tuple(
        _join(
            [measurement for measurement in latest.values() if measurement.variant.model == model],
            rounds,
            ends,
            compared,
            study.splits,
            confidence,
        )
        for model in models
    )


def _join(
    measurements: Sequence[Measurement],
    rounds: Mapping[int, Sequence[Round]],
    ends: Sequence[TimingEnd],
    compared: Sequence[str],
    splits: dict[str, ReportSplit],
    confidence: float,
) -> Evidence:
    model = measurements[0].variant.model
    baseline, no_baseline = _find_baseline(measurements, compared)
    digests = [measurement.variant.digest for measurement in measurements if measurement.status is Status.OK]
    compared_with = baseline.variant.digest if baseline else ""
    return Evidence(
        model=model,
        measurements=tuple(measurements),
        baseline=baseline,
        no_baseline=no_baseline,
        timings={
            batch: collect_timings(some, compared_with, digests, confidence) for batch, some in rounds.items()
        },
        ends=tuple(end for end in ends if end.baseline == compared_with),
        hits=_score(measurements, splits, baseline),
        splits=splits,
        confidence=confidence,
        search_hits=_score_search(measurements, splits, baseline),
        stand_in=_explain_stand_in(model, measurements, baseline),
    )


def _without_figures(failed: Measurement) -> Measurement:
    return replace(
        failed,
        predictions=None,
        search_predictions=None,
        memory=(),
        cold_start_s=(),
        energy=(),
        observations=(),
    )


def _find_baseline(
    measurements: Sequence[Measurement], compared: Sequence[str]
) -> tuple[Measurement | None, str]:
    """Return what ratios are against, or why there is none.

    `compared` are the digests that groups were timed against, in order: the last counts where several
    runtimes could stand in.
    """
    fp32 = {
        measurement.variant.digest: measurement
        for measurement in measurements
        if measurement.variant.config == BASELINE_CONFIG
    }
    own = next((measurement for measurement in fp32.values() if measurement.variant.name == BASELINE), None)
    if own is None:
        return None, f"the baseline {BASELINE} was not measured"
    if own.status is Status.OK:
        return own, ""
    if own.status.lasts:
        sound = {
            digest: measurement for digest, measurement in fp32.items() if measurement.status is Status.OK
        }
        digest = next((digest for digest in (*reversed(compared), *sound) if digest in sound), None)
        if digest is not None:
            return sound[digest], ""
    return None, f"the baseline {BASELINE} {own.status.explain(own.reason)}"


def _explain_stand_in(model: str, measurements: Sequence[Measurement], baseline: Measurement | None) -> str:
    if baseline is None or baseline.variant.name == BASELINE:
        return ""
    own = next(measurement for measurement in measurements if measurement.variant.name == BASELINE)
    return (
        f"All ratios and differences of {model} are against {baseline.variant.name}, as {BASELINE} "
        f"{own.status.explain(own.reason)}."
    )


def _score(
    measurements: Sequence[Measurement], splits: dict[str, ReportSplit], baseline: Measurement | None
) -> dict[str, Hits]:
    hits: dict[str, Hits] = {}
    for measurement in measurements:
        if measurement.predictions is None or why_unscored(measurement, splits) is not None:
            continue
        # Positions of another split are other images: nothing to compare.
        shared = baseline.predictions if baseline and baseline.split == measurement.split else None
        found = find_hits(measurement.predictions, splits[measurement.split].labels, shared)
        if found is not None:
            hits[measurement.variant.digest] = found
    return hits


def _score_search(
    measurements: Sequence[Measurement], splits: dict[str, ReportSplit], baseline: Measurement | None
) -> dict[str, Hits]:
    """As `_score`, of the search split; empty for a study of a version that did not record it."""
    hits: dict[str, Hits] = {}
    for measurement in measurements:
        predictions, split = measurement.search_predictions, splits.get(measurement.split)
        if predictions is None or split is None or not predictions.positions:
            continue
        if max(predictions.positions) >= len(split.search_labels):
            continue
        shared = baseline.search_predictions if baseline and baseline.split == measurement.split else None
        found = find_hits(predictions, split.search_labels, shared)
        if found is not None:
            hits[measurement.variant.digest] = found
    return hits
