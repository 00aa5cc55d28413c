"""One variant's figures, derived from the evidence of its model."""

from __future__ import annotations

import statistics

import numpy as np

from quant_explorer.analysis.accuracy import accuracy_of, agreement_of, why_unscored
from quant_explorer.analysis.evidence import Evidence
from quant_explorer.analysis.latency import latency_of, no_latency
from quant_explorer.analysis.results import (
    Accuracy,
    Agreement,
    ExecutedMacs,
    Latency,
    Memory,
    MetricFigure,
    Place,
    Reasons,
    Size,
    VariantResult,
)
from quant_explorer.core.measurement import Measurement, Observation, Status
from quant_explorer.core.settings.groups import MARGIN_PP
from quant_explorer.stats.intervals import median_interval


def describe_variant(
    evidence: Evidence, measurement: Measurement, margin_pp: float = MARGIN_PP
) -> VariantResult:
    """Derive everything the report says of one variant but its place among the others."""
    variant = measurement.variant
    accuracy, agreement, reasons = _accuracy(evidence, measurement, margin_pp)
    cold_start_s = statistics.median(measurement.cold_start_s) if measurement.cold_start_s else None
    if cold_start_s is None:
        reasons["cold_start_s"] = _why_missing(measurement, "no cold start was recorded")
    if measurement.precision is None:
        reasons["precision"] = _why_missing(measurement, "what was asked for was not recorded")
    return VariantResult(
        name=variant.name,
        config=variant.config,
        runtime=variant.runtime,
        model=variant.model,
        digest=variant.digest,
        status=measurement.status,
        reason=measurement.reason,
        size=_size(evidence, measurement),
        latency=_latency(evidence, measurement),
        memory=_memory(measurement),
        cold_start_s=cold_start_s,
        accuracy=accuracy,
        agreement=agreement,
        executed=_executed(measurement),
        frontier=Place(),
        notes=measurement.notes,
        steps=measurement.steps,
        reasons=reasons,
        precision=measurement.precision,
        preprocessing=measurement.preprocessing,
        metrics={observation.metric: _figure(observation) for observation in measurement.observations},
    )


def _size(evidence: Evidence, measurement: Measurement) -> Size:
    """Add up the files a deployment needs, and compare with the baseline's."""
    if not measurement.files:
        reason = _why_missing(measurement, "no files were recorded")
        return Size(reasons={"bytes": reason, "ratio": reason})
    total = sum(file.bytes for file in measurement.files)
    reference = sum(file.bytes for file in evidence.baseline.files) if evidence.baseline else 0
    if not reference:
        reason = evidence.no_baseline or "the baseline has no size"
        return Size(total, None, measurement.files, {"ratio": reason})
    return Size(total, total / reference, measurement.files)


def _latency(evidence: Evidence, measurement: Measurement) -> dict[str, Latency]:
    if measurement.status is not Status.OK:
        reason = _why_missing(measurement, "")
        return {str(batch): no_latency(reason) for batch in evidence.timings}
    digest = measurement.variant.digest
    reference = evidence.fp32_digest(measurement.variant.runtime)
    settled = {
        end.batch_size
        for end in evidence.ends
        if digest in end.settled and evidence.timings[end.batch_size].stopped_early(digest, end.group)
    }
    return {
        str(batch): latency_of(timings, digest, reference, settled=batch in settled)
        for batch, timings in evidence.timings.items()
    }


def _memory(measurement: Measurement) -> Memory:
    if not measurement.memory:
        missing = measurement.memory_reason or _why_missing(measurement, "no peak memory was recorded")
        return Memory(reasons={"peak_bytes": missing})
    return Memory({str(peak.batch_size): peak.peak_bytes - peak.floor_bytes for peak in measurement.memory})


def _executed(measurement: Measurement) -> ExecutedMacs:
    if measurement.executed is None:
        reason = _why_missing(measurement, "the runtime reported nothing of what it executed")
        return ExecutedMacs(reasons={"int8_mac_fraction": reason, "macs": reason})
    return ExecutedMacs(measurement.executed.fraction("int8"), dict(measurement.executed.macs))


def _figure(observed: Observation) -> MetricFigure:
    if not observed.values:
        reason = observed.reason or "nothing was observed"
        return MetricFigure(observed.unit, reasons={"value": reason, "ci": reason})
    if len(observed.values) < 2 or min(observed.values) <= 0:
        reason = "an interval needs two values or more, all of them positive"
        return MetricFigure(observed.unit, statistics.median(observed.values), reasons={"ci": reason})
    return MetricFigure(observed.unit, *median_interval(np.array(observed.values)))


def _accuracy(
    evidence: Evidence, measurement: Measurement, margin_pp: float
) -> tuple[Accuracy | None, Agreement | None, Reasons]:
    unscored = why_unscored(measurement, evidence.splits)
    predictions, hits = measurement.predictions, evidence.hits.get(measurement.variant.digest)
    if unscored is not None or predictions is None:
        reason = unscored or _why_missing(measurement, "no images were scored")
        return None, None, {"accuracy": reason, "agreement": reason}
    is_baseline = evidence.is_baseline(measurement)
    untrained = f"{measurement.variant.model} was not trained on these classes: it has no accuracy"
    if hits is None:
        missing = evidence.no_baseline or "it shares no image with the baseline"
        return None, None, {"accuracy": untrained, "agreement": missing}
    if not predictions.trained:
        agreement = agreement_of(
            hits, predictions.sqnr_db, is_baseline=is_baseline, confidence=evidence.confidence
        )
        return None, agreement, {"accuracy": untrained}
    reference = evidence.baseline_hits if evidence.same_split(measurement.variant.digest) else None
    split = evidence.splits[measurement.split]
    accuracy = accuracy_of(
        hits,
        predictions.top5_hits,
        split,
        reference,
        is_baseline=is_baseline,
        margin_pp=margin_pp,
        confidence=evidence.confidence,
    )
    return accuracy, None, {"agreement": "a trained model has an accuracy instead"}


def _why_missing(measurement: Measurement, otherwise: str) -> str:
    if measurement.status is Status.OK:
        return otherwise
    return f"it {measurement.status.explain(measurement.reason)}"
