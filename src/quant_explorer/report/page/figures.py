"""A variant's figures by axis, in the units that the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quant_explorer.analysis.decide.budgets import latency_at, memory_at
from quant_explorer.analysis.decide.search_split import SearchSplit
from quant_explorer.analysis.evidence import Evidence
from quant_explorer.analysis.hardware.energy import energy_per_call
from quant_explorer.analysis.results import Latency, VariantResult
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.report.page.content import Axis, Figure
from quant_explorer.stats.intervals import Interval

TAIL = Budgets(percentile="p99")
Found = tuple[str, Figure | str]


def find_axes(
    variants: Sequence[VariantResult], batches: Sequence[int], *, trained: bool
) -> tuple[Axis, ...]:
    """Return every axis that the variants of one model may have a figure on; the ranked ones come first."""
    units = {name: figure.unit for variant in variants for name, figure in variant.metrics.items()}
    ranked, *others = batches
    accuracy = (
        Axis("accuracy", "top-1 accuracy", "%", "maximize")
        if trained
        else Axis("accuracy", "top-1 agreement with FP32", "%", "maximize")
    )
    return (
        Axis("size", "size of the files", "MB", "minimize"),
        Axis(f"p50:{ranked}", f"median latency, batch {ranked}", "ms", "minimize"),
        accuracy,
        *((Axis("change", "change of accuracy", "pp", "maximize"),) if trained else ()),
        *(Axis(f"p50:{batch}", f"median latency, batch {batch}", "ms", "minimize") for batch in others),
        *(Axis(f"p99:{batch}", f"99th percentile, batch {batch}", "ms", "minimize") for batch in batches),
        *(Axis(f"speedup:{batch}", f"speed-up, batch {batch}", "times", "maximize") for batch in batches),
        *(
            Axis(
                f"same_runtime:{batch}",
                f"speed-up over FP32 of its runtime, batch {batch}",
                "times",
                "maximize",
            )
            for batch in batches
        ),
        *(Axis(f"memory:{batch}", f"peak memory, batch {batch}", "MB", "minimize") for batch in batches),
        Axis("cold_start", "cold start", "ms", "minimize"),
        Axis("int8", "multiply-accumulates in INT8", "%", "maximize"),
        Axis("energy", "energy of a call", "mJ", "minimize"),
        # A metric says nothing of its direction; most are costs.
        *(Axis(f"metric:{name}", name, unit, "minimize") for name, unit in units.items()),
    )


def find_figures(
    variant: VariantResult, evidence: Evidence, batches: Sequence[int]
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Return a measured variant's figures by axis, and the reason for each that it lacks."""
    found = dict(_figures(variant, evidence, batches))
    return (
        {key: value for key, value in found.items() if isinstance(value, Figure)},
        {key: value for key, value in found.items() if isinstance(value, str)},
    )


def search_figure(search: SearchSplit, digest: str) -> Figure | None:
    """Return a variant's change on the search split, None where that decides nothing."""
    found = search.changes.get(digest)
    return _scaled(found.diff_pp, found.interval_pp, 1) if found else None


def _figures(variant: VariantResult, evidence: Evidence, batches: Sequence[int]) -> Iterator[Found]:
    size = variant.size.bytes
    yield "size", variant.size.reasons.get("bytes", "not measured") if size is None else Figure(size / 1e6)
    yield from _accuracies(variant)
    for batch in batches:
        yield from _latencies(variant, evidence, batch)
        peak = memory_at(variant, batch)
        yield f"memory:{batch}", peak if isinstance(peak, str) else Figure(peak / 1e6)
    cold_start = variant.cold_start_s
    missing = variant.reasons.get("cold_start_s", "not measured")
    yield "cold_start", missing if cold_start is None else Figure(cold_start * 1e3)
    share = variant.executed.int8_mac_fraction
    missing = variant.executed.reasons.get("int8_mac_fraction", "not recorded")
    yield "int8", missing if share is None else Figure(share * 100)
    blocks = evidence.energy(variant.digest)
    for name, metric in variant.metrics.items():
        missing = metric.reasons.get("value", "not measured")
        yield f"metric:{name}", missing if metric.value is None else _scaled(metric.value, metric.ci, 1)
    yield "energy", _scaled(*energy_per_call(blocks), 1e3) if len(blocks) > 1 else "not measured"


def _accuracies(variant: VariantResult) -> Iterator[Found]:
    accuracy, agreement = variant.accuracy, variant.agreement
    if accuracy is not None:
        yield "accuracy", _scaled(accuracy.top1, accuracy.top1_ci, 100)
        if accuracy.diff_pp is not None:
            yield "change", _scaled(accuracy.diff_pp, accuracy.diff_ci_pp, 1)
            return
        yield "change", accuracy.reasons.get("diff_pp", "not compared")
    elif agreement is not None:
        yield "accuracy", _scaled(agreement.top1_agreement, agreement.top1_agreement_ci, 100)
    else:
        yield "accuracy", variant.reasons.get("accuracy", "not scored")


def _latencies(variant: VariantResult, evidence: Evidence, batch: int) -> Iterator[Found]:
    for budgets in (Budgets(), TAIL):
        found = latency_at(variant, budgets, batch, evidence.timings.get(batch))
        yield f"{budgets.percentile}:{batch}", found if isinstance(found, str) else _scaled(*found, 1e3)
    latency = variant.latency.get(str(batch)) or Latency()
    for key, point, interval in (
        ("speedup", latency.speedup, latency.speedup_ci),
        ("same_runtime", latency.speedup_same_runtime, latency.speedup_same_runtime_ci),
    ):
        missing = latency.reasons.get("speedup" if key == "speedup" else "speedup_same_runtime", "not timed")
        yield f"{key}:{batch}", missing if point is None else _scaled(point, interval, 1)


def _scaled(point: float, interval: Interval | None, factor: float) -> Figure:
    ends = (interval.low, interval.high) if interval else ()
    return Figure(*(_shortened(value * factor) for value in (point, *ends)))


def _shortened(value: float) -> float:
    """Leave out digits that no figure has, and that a page of hundreds of variants would be large by."""
    return float(f"{value:.9g}")
