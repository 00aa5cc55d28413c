"""The frontier up to the resolution: variants that nothing measured separates are one choice, not several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quant_explorer.analysis.evidence import Evidence
from quant_explorer.analysis.results import VariantResult
from quant_explorer.core.settings.groups import DecisionRules
from quant_explorer.stats.paired import compare_paired


@dataclass(frozen=True)
class Separation:
    """Whether direct comparisons show one variant of a model to be better than another on an axis."""

    evidence: Evidence
    batch: int
    rules: DecisionRules

    def is_better(self, variant: VariantResult, other: VariantResult) -> bool:
        """Say whether it is shown to be better on at least one of size, latency and accuracy."""
        return (
            self.is_smaller(variant, other)
            or self.is_faster(variant, other)
            or self.is_more_accurate(variant, other)
        )

    def is_smaller(self, variant: VariantResult, other: VariantResult) -> bool:
        """Sizes are exact, but those within the allowed share of each other tie."""
        if variant.size.bytes is None or other.size.bytes is None:
            return False
        return variant.size.bytes * (1 + self.rules.epsilon_size) < other.size.bytes

    def is_faster(self, variant: VariantResult, other: VariantResult) -> bool:
        """By the rounds that timed both: the interval of the ratio lies beyond the allowed share."""
        found = self.evidence.timings[self.batch].compare(variant.digest, other.digest)
        return not isinstance(found, str) and found[1].low > 1 + self.rules.epsilon_latency

    def is_more_accurate(self, variant: VariantResult, other: VariantResult) -> bool:
        """By the images that both saw: the interval of the paired difference lies above 0."""
        own, others = (self.evidence.hits.get(compared.digest) for compared in (variant, other))
        if own is None or others is None:
            return False
        common = np.intersect1d(own.positions, others.positions)
        return bool(len(common)) and (
            compare_paired(own.at(common), others.at(common), self.evidence.confidence).verdict == "gain"
        )


def find_groups(
    variants: Sequence[VariantResult], evidence: Evidence, batch: int, rules: DecisionRules
) -> dict[str, str]:
    """Map the digest of each variant on the frontier to the name of its group's representative.

    A group holds its representative and what is nowhere shown to be better than it. Representatives are found
    one after the other among what has no group yet: first the variants that no other is shown to beat (better
    on an axis, and not worse on any), of those the smallest, or of what ties with it on every axis that with
    the fewest steps. Being tied is not transitive, so that two members of a group may differ measurably.
    """
    separation = Separation(evidence, batch, rules)
    left = [variant for variant in variants if variant.frontier.on_frontier]
    better = {
        (variant.digest, other.digest)
        for variant in left
        for other in left
        if variant is not other and separation.is_better(variant, other)
    }

    def count_beating(variant: VariantResult) -> int:
        return sum(
            (other.digest, variant.digest) in better and (variant.digest, other.digest) not in better
            for other in left
        )

    beaten = {variant.digest: count_beating(variant) for variant in left}
    found: dict[str, str] = {}
    while left:
        smallest = min(left, key=lambda member: (beaten[member.digest], member.size.bytes or 0))
        equals = [
            member
            for member in left
            if beaten[member.digest] == beaten[smallest.digest]
            and (member.digest, smallest.digest) not in better
            and (smallest.digest, member.digest) not in better
        ]
        representative = min(equals, key=lambda equal: (len(equal.steps), equal.size.bytes or 0, equal.name))
        members = [candidate for candidate in left if (candidate.digest, representative.digest) not in better]
        found |= {member.digest: representative.name for member in members}
        left = [candidate for candidate in left if candidate not in members]
    return found
