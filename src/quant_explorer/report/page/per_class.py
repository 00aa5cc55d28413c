"""Which classes the page shows, and how a variant changes them."""

from __future__ import annotations

from collections.abc import Sequence

from quant_explorer.analysis.results import ClassAccuracy, VariantResult
from quant_explorer.report.page.content import ClassChange

MOST_CLASSES = 40


def names_of_classes(variants: Sequence[VariantResult]) -> tuple[str, ...]:
    """Return the classes of the report split; none when nothing was scored against labels."""
    scored = [variant.accuracy for variant in variants if variant.accuracy]
    return tuple(some.name for some in scored[0].per_class) if scored else ()


def choose_classes(variants: Sequence[VariantResult]) -> tuple[int, ...]:
    """Return the numbers of the classes to show, ascending.

    Where there are more than `MOST_CLASSES`, those with the most changes that stay after Holm's correction,
    then those with the largest change.
    """
    scored = [variant.accuracy.per_class for variant in variants if variant.accuracy]
    if not scored:
        return ()

    def weight(number: int) -> tuple[int, float]:
        changes = [change for some in scored if (change := change_of(some[number])) is not None]
        return sum(change.marked for change in changes), max(
            (abs(change.diff_pp) for change in changes), default=0
        )

    numbers = sorted(range(len(scored[0])), key=weight, reverse=True)
    return tuple(sorted(numbers[:MOST_CLASSES]))


def change_of(found: ClassAccuracy) -> ClassChange | None:
    """Return the change of a class against the baseline, None where it was not compared."""
    if found.diff_pp is None:
        return None
    return ClassChange(found.diff_pp, marked=found.verdict in ("gain", "loss"))
