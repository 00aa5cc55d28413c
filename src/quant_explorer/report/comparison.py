"""Two runs beside each other, as a table and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from quant_explorer.analysis.decide.comparison import RunComparison, VariantComparison
from quant_explorer.core.units import list_some
from quant_explorer.report.columns import MISSING, Table, signed, with_interval

_HEADINGS = ("variant", "model", "size_ratio", "speed_ratio", "speed", "acc_diff_pp", "images")


def comparison_table(found: RunComparison) -> Table:
    """Return a row for every variant that both runs measured."""
    numeric = (False, False, True, True, False, True, True)
    return Table("B compared with A", _HEADINGS, numeric, tuple(_row(variant) for variant in found.variants))


def describe_comparison(found: RunComparison) -> Iterator[str]:
    """Yield how the environments differ, the verdicts, why figures do not compare, and what is alone."""
    if found.environments:
        yield f"Other environments, A there and B here: {found.environments}."
    speeds = _counted(variant.speed for variant in found.variants)
    yield f"Speed of B: {speeds}. Accuracy of B: {_counted(variant.quality for variant in found.variants)}."
    for reason in dict.fromkeys(reason for variant in found.variants for reason in variant.reasons.values()):
        names = [variant.name for variant in found.variants if reason in variant.reasons.values()]
        yield f"Not comparable for {list_some(names)}: {reason}."
    for run, alone in (("A", found.only_in_a), ("B", found.only_in_b)):
        if alone:
            yield f"Measured in {run} alone: {list_some(alone)}."


def _row(comparison: VariantComparison) -> tuple[str, ...]:
    return (
        comparison.name,
        comparison.model,
        MISSING if comparison.size_ratio is None else f"{comparison.size_ratio:.3f}",
        MISSING
        if comparison.speed_ratio is None
        else with_interval(comparison.speed_ratio, comparison.speed_ci, "{:.3f}".format),
        comparison.speed,
        comparison.quality
        if comparison.diff_pp is None
        else f"{with_interval(comparison.diff_pp, comparison.diff_ci_pp, signed)} {comparison.quality}",
        f"{comparison.images:,}",
    )


def _counted(verdicts: Iterable[str]) -> str:
    return ", ".join(f"{verdict} {count}" for verdict, count in Counter(verdicts).most_common())
