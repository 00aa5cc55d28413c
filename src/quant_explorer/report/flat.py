"""One flat row a variant, in seconds and bytes: what a data frame and an experiment tracker take."""

from __future__ import annotations

from collections.abc import Iterator

from quant_explorer.analysis.results import Latency, VariantResult
from quant_explorer.stats.intervals import Interval

Cell = str | float | int | bool | None


def flatten(variant: VariantResult) -> dict[str, Cell]:
    """Return a variant's names and figures; a figure with an interval has its ends as `_low` and `_high`.

    Units end the names (`_s`, `_bytes`, `_pp`), with the batch size after them; shares are from 0 to 1. A
    figure that was not found is None, and what a model does not have (an accuracy, an agreement) is left out.
    """
    return dict(_names(variant)) | figures_of(variant)


def figures_of(variant: VariantResult) -> dict[str, float | None]:
    """Return the figures alone, by name."""
    return dict(_figures(variant))


def _names(variant: VariantResult) -> Iterator[tuple[str, Cell]]:
    yield "variant", variant.name
    yield "model", variant.model
    yield "config", variant.config
    yield "runtime", variant.runtime
    yield "precision", variant.precision
    yield "steps", "; ".join(variant.steps)
    yield "status", variant.status.value
    yield "reason", variant.reason
    yield "digest", variant.digest
    place = variant.frontier
    yield "on_frontier", place.on_frontier
    yield "dominated_by", "; ".join(place.dominated_by)
    yield "group", place.group
    accuracy = variant.accuracy
    yield "verdict", accuracy.verdict if accuracy else None
    margin = accuracy.non_inferiority if accuracy else None
    yield "margin_verdict", margin.verdict if margin else None


def _figures(variant: VariantResult) -> Iterator[tuple[str, float | None]]:
    yield "size_bytes", variant.size.bytes
    yield "size_ratio", variant.size.ratio
    yield from _accuracies(variant)
    for batch, latency in variant.latency.items():
        yield from _latencies(latency, f"batch_{batch}")
    for batch, peak in (variant.memory.peak_bytes or {}).items():
        yield f"peak_memory_bytes_batch_{batch}", peak
    yield "cold_start_s", variant.cold_start_s
    yield "int8_mac_fraction", variant.executed.int8_mac_fraction
    yield "frontier_probability", variant.frontier.probability
    for name, metric in variant.metrics.items():
        yield from _with_ends(f"{name}_{metric.unit}", metric.value, metric.ci)


def _accuracies(variant: VariantResult) -> Iterator[tuple[str, float | None]]:
    accuracy, agreement = variant.accuracy, variant.agreement
    if accuracy is not None:
        yield from _with_ends("top1", accuracy.top1, accuracy.top1_ci)
        yield "top5", accuracy.top5
        yield from _with_ends("change_pp", accuracy.diff_pp, accuracy.diff_ci_pp)
        yield "mcnemar_p", accuracy.mcnemar_p
    if agreement is not None:
        yield from _with_ends("top1_agreement", agreement.top1_agreement, agreement.top1_agreement_ci)
        yield "sqnr_db", agreement.sqnr_db
    yield "images", variant.scored_images


def _latencies(latency: Latency, batch: str) -> Iterator[tuple[str, float | None]]:
    yield from _with_ends(f"latency_p50_s_{batch}", latency.p50_s, latency.p50_ci_s)
    yield f"latency_p95_s_{batch}", latency.p95_s
    yield f"latency_p99_s_{batch}", latency.p99_s
    yield from _with_ends(f"speedup_{batch}", latency.speedup, latency.speedup_ci)
    yield from _with_ends(
        f"speedup_same_runtime_{batch}", latency.speedup_same_runtime, latency.speedup_same_runtime_ci
    )


def _with_ends(
    name: str, point: float | None, interval: Interval | None
) -> Iterator[tuple[str, float | None]]:
    yield name, point
    yield f"{name}_low", interval.low if interval else None
    yield f"{name}_high", interval.high if interval else None
