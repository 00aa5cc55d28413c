"""Budgets: which variants a deployment can afford, and by how much the others miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quant_explorer.analysis.decide.search_split import SearchChange
from quant_explorer.analysis.latency import Timings
from quant_explorer.analysis.results import VariantResult
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.stats.intervals import Interval
from quant_explorer.stats.rounds import tail_interval

_MB = 1e6


@dataclass(frozen=True)
class Excess:
    """One budget that a variant does not keep. `found` is None when the figure is missing, with `reason`."""

    budget: str
    limit: float
    found: float | None
    unit: str
    reason: str = ""

    @property
    def relative(self) -> float:
        """By how much the limit is exceeded, relative to it; infinite for a missing figure."""
        if self.found is None:
            return float("inf")
        return (self.found - self.limit) / self.limit if self.limit else float("inf")

    def describe(self) -> str:
        """Return the sentence that a report prints."""
        if self.found is None:
            return f"{self.budget}: unknown ({self.reason}), at most {self.limit:g} {self.unit} allowed"
        over = self.found - self.limit
        amount = f"{self.found:.4g} {self.unit}, {over:.3g} {self.unit} over"
        return f"{self.budget}: {amount} the {self.limit:g} allowed"


def judge(
    variant: VariantResult,
    budgets: Budgets,
    *,
    batch: int,
    timings: Timings | None = None,
    search: SearchChange | None = None,
) -> tuple[Excess, ...]:
    """Return every budget that a measured variant exceeds at a batch size; none means that it fits.

    `timings` at that batch size are needed for the bad end of a 99th percentile alone. `search` stands for
    the change of accuracy where the search split decides.
    """
    return tuple(_judge(variant, budgets, batch, timings, search))


def latency_at(
    variant: VariantResult, budgets: Budgets, batch: int, timings: Timings | None
) -> tuple[float, Interval | None] | str:
    """Return the percentile that the budgets ask for in seconds, with its interval, or why there is none."""
    latency = variant.latency.get(str(batch))
    if latency is None:
        return f"not timed at batch {batch}"
    if budgets.percentile == "p50":
        if latency.p50_s is None:
            return latency.reasons.get("p50_s", "not timed")
        return latency.p50_s, latency.p50_ci_s
    if latency.p99_s is None:
        return latency.reasons.get("p99_s", "not timed")
    calls_s = timings.calls_s(variant.digest) if timings else ()
    return latency.p99_s, tail_interval(calls_s, 0.99, timings.confidence) if timings else None


def memory_at(variant: VariantResult, batch: int) -> float | str:
    """Return the peak memory in bytes at a batch size, or at the next larger one measured; or why not."""
    measured = {int(size): peak for size, peak in (variant.memory.peak_bytes or {}).items()}
    enough = [size for size in measured if size >= batch]
    if enough:
        return measured[min(enough)]
    missing = f"measured up to batch {max(measured)}" if measured else "not measured"
    return variant.memory.reasons.get("peak_bytes", missing)


def _judge(
    variant: VariantResult,
    budgets: Budgets,
    batch: int,
    timings: Timings | None,
    search: SearchChange | None,
) -> Iterator[Excess]:
    if budgets.size_bytes is not None:
        size = variant.size.bytes
        yield from _over(
            "size", "not measured" if size is None else size, budgets.size_bytes / _MB, "MB", _MB
        )
    if budgets.memory_bytes is not None:
        yield from _over("peak memory", memory_at(variant, batch), budgets.memory_bytes / _MB, "MB", _MB)
    if budgets.latency_s is not None:
        found = latency_at(variant, budgets, batch, timings)
        name = "latency" if budgets.percentile == "p50" else f"{budgets.percentile} latency"
        seconds = found if isinstance(found, str) else _bad_end(*found, use_ci=budgets.use_ci)
        yield from _over(name, seconds, budgets.latency_s * 1e3, "ms", 1e-3)
    if budgets.accuracy_drop_pp is not None:
        name, drop = _drop(variant, search, use_ci=budgets.use_ci)
        yield from _over(name, drop, budgets.accuracy_drop_pp, "pp", 1.0)


def _over(budget: str, found: float | str, limit: float, unit: str, size: float) -> Iterator[Excess]:
    """Compare a figure, or the reason why it is missing; `limit` is in units of `size`."""
    if isinstance(found, str):
        yield Excess(budget, limit, None, unit, found)
    elif found / size > limit:
        yield Excess(budget, limit, found / size, unit)


def _bad_end(point: float, interval: Interval | None, *, use_ci: bool) -> float:
    return interval.high if use_ci and interval else point


def _drop(variant: VariantResult, search: SearchChange | None, *, use_ci: bool) -> tuple[str, float | str]:
    """Return the loss of top-1 in percentage points; of a model without accuracy, of agreement with FP32."""
    accuracy, agreement = variant.accuracy, variant.agreement
    if search is not None:
        kept_pp = search.interval_pp.low if use_ci else search.diff_pp
        return "changed predictions" if accuracy is None else "accuracy drop", -kept_pp
    if accuracy is not None and accuracy.diff_pp is not None:
        gain = accuracy.diff_ci_pp.low if use_ci and accuracy.diff_ci_pp else accuracy.diff_pp
        return "accuracy drop", -gain
    if agreement is not None:
        kept = agreement.top1_agreement_ci.low if use_ci else agreement.top1_agreement
        return "changed predictions", 100 * (1 - kept)
    return "accuracy drop", "not scored"
