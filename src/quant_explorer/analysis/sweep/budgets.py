"""Budgets: which variants a deployment can afford, and by how much the others miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quant_explorer.analysis.results import VariantResult
from quant_explorer.core.settings.plan import Budgets

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


def judge(variant: VariantResult, budgets: Budgets, *, batch: int) -> tuple[Excess, ...]:
    """Return every budget that a measured variant exceeds at a batch size; none means that it fits."""
    return tuple(_judge(variant, budgets, str(batch)))


def _judge(variant: VariantResult, budgets: Budgets, batch: str) -> Iterator[Excess]:
    memory = (variant.memory.peak_bytes or {}).get(batch)
    no_memory = variant.memory.reasons.get("peak_bytes", "not measured")
    if budgets.memory_bytes is not None:
        yield from _over("size", variant.size.bytes, budgets.memory_bytes, "not measured")
        yield from _over("peak memory", memory, budgets.memory_bytes, no_memory)
    if budgets.active_memory_bytes is not None:
        yield from _over("active memory", memory, budgets.active_memory_bytes, no_memory)
    if budgets.latency_s is not None:
        yield from _over_latency(variant, budgets, batch)
    if budgets.accuracy_drop_pp is not None:
        yield from _over_drop(variant, budgets)


def _over(budget: str, found: float | None, limit: float, reason: str) -> Iterator[Excess]:
    if found is None or found > limit:
        yield Excess(budget, limit / _MB, None if found is None else found / _MB, "MB", reason)


def _over_latency(variant: VariantResult, budgets: Budgets, batch: str) -> Iterator[Excess]:
    assert budgets.latency_s is not None
    latency = variant.latency.get(batch)
    if latency is None or latency.p50_s is None:
        yield Excess("latency", budgets.latency_s * 1e3, None, "ms", "not timed")
        return
    bad_end = latency.p50_ci_s.high if budgets.use_ci and latency.p50_ci_s else latency.p50_s
    if bad_end > budgets.latency_s:
        yield Excess("latency", budgets.latency_s * 1e3, bad_end * 1e3, "ms")


def _over_drop(variant: VariantResult, budgets: Budgets) -> Iterator[Excess]:
    assert budgets.accuracy_drop_pp is not None
    accuracy = variant.accuracy
    if accuracy is None or accuracy.diff_pp is None:
        yield Excess("accuracy drop", budgets.accuracy_drop_pp, None, "pp", "not scored")
        return
    gain = accuracy.diff_ci_pp.low if budgets.use_ci and accuracy.diff_ci_pp else accuracy.diff_pp
    if -gain > budgets.accuracy_drop_pp:
        yield Excess("accuracy drop", budgets.accuracy_drop_pp, -gain, "pp")
