"""The search split decides about accuracy, so that the reported figures flatter no choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quant_explorer.analysis.evidence import Evidence
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.core.units import format_count
from quant_explorer.stats.intervals import Interval, wilson
from quant_explorer.stats.paired import compare_paired, paired_interval


@dataclass(frozen=True)
class SearchChange:
    """The change against the baseline on the search split, in percentage points, with its interval.

    Of a trained model that of top-1; of another, minus the share of predictions that changed.
    """

    diff_pp: float
    interval_pp: Interval


@dataclass(frozen=True)
class SearchSplit:
    """What the search split says of a model's variants, by digest.

    `least_pp` is the loss that its images could not exclude of a variant that changes nothing, with interval.
    `missing` says why nothing can be decided on it; then there are no changes.
    """

    changes: dict[str, SearchChange]
    images: int = 0
    least_pp: float = 0.0
    missing: str = ""

    def decides(self, budgets: Budgets) -> bool:
        """Whether these images can show a variant that changes nothing to be within the accuracy drop."""
        limit_pp = budgets.accuracy_drop_pp
        if self.missing or limit_pp is None:
            return False
        return not budgets.use_ci or limit_pp >= self.least_pp

    def change_that_decides(self, digest: str, budgets: Budgets) -> SearchChange | None:
        """Return a variant's change where these images decide by the budgets, None where they do not."""
        return self.changes.get(digest) if self.decides(budgets) else None

    def explain(self, budgets: Budgets) -> str:
        """Return the split that decides, with the reason if it is another; "" without a limit of the drop."""
        if budgets.accuracy_drop_pp is None:
            return ""
        if self.decides(budgets):
            return f"the search split ({format_count(self.images, 'image')})"
        reason = self.missing or (
            f"the {format_count(self.images, 'image')} of the search split can show no loss below "
            f"{self.least_pp:.2g} pp"
        )
        return f"the report split ({reason})"


def examine_search(evidence: Evidence) -> SearchSplit:
    """Compare each variant with the baseline on the search split, if all that were scored were scored on it.

    Were some decided on other images than the others, the split would choose.
    """
    baseline = evidence.search_hits.get(evidence.baseline_digest or "")
    digests = [digest for digest in evidence.hits if evidence.same_split(digest)]
    if baseline is None or not evidence.search_hits.keys() >= set(digests):
        return SearchSplit(
            {}, missing="the study does not hold each variant's predictions of the search split"
        )
    shared = {
        digest: np.intersect1d(evidence.search_hits[digest].positions, baseline.positions)
        for digest in digests
    }
    images = min(map(len, shared.values()), default=0)
    if not images:
        return SearchSplit({}, missing="the search split has no image that all variants were scored on")
    changes: dict[str, SearchChange] = {}
    for digest, positions in shared.items():
        right = evidence.search_hits[digest].at(positions)
        if digest == evidence.baseline_digest:
            changes[digest] = SearchChange(0.0, Interval(0.0, 0.0))
        elif evidence.trained:
            found = compare_paired(right, baseline.at(positions), evidence.confidence)
            changes[digest] = SearchChange(found.diff_pp, found.interval_pp)
        else:
            changes[digest] = _agreement(int(right.sum()), len(right), evidence.confidence)
    least = (
        -100 * paired_interval(0, 0, images, evidence.confidence).low
        if evidence.trained
        else -_agreement(images, images, evidence.confidence).interval_pp.low
    )
    return SearchSplit(changes, images, least)


def _agreement(kept: int, images: int, confidence: float) -> SearchChange:
    share = wilson(kept, images, confidence)
    return SearchChange(100 * (kept / images - 1), Interval(100 * (share.low - 1), 100 * (share.high - 1)))
