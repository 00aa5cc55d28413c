"""A variant that is to be timed, and how many workers fit in memory together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.measurement import Measurement
from quant_explorer.machine.memory import available_bytes

# Of the memory that is free when workers start; the rest is for the parent and the system.
MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Contender:
    """A built and measured variant that is to be timed."""

    artifact: Artifact
    runtime: Runtime
    measurement: Measurement

    @property
    def digest(self) -> str:
        """The digest of the variant's recipe."""
        return self.measurement.variant.digest

    @property
    def size_bytes(self) -> int:
        """Bytes of the files a deployment needs."""
        return sum(file.bytes for file in self.measurement.files)

    @property
    def peak_bytes(self) -> int:
        """Resident memory its worker needs, or the size of its files where that is unknown."""
        peaks = [peak.peak_bytes for peak in self.measurement.memory]
        return max(peaks, default=self.size_bytes)


def workers_that_fit(contender: Contender) -> int:
    """Return how many more workers of a contender fit in memory."""
    return int(MEMORY_SHARE * available_bytes() / contender.peak_bytes)


def group_by_memory(baseline: Contender, others: Sequence[Contender]) -> list[list[Contender]]:
    """Split contenders into groups whose workers fit in memory beside the baseline and its twin."""
    room = MEMORY_SHARE * available_bytes() - 2 * baseline.peak_bytes
    groups: list[list[Contender]] = [[]]
    used = 0
    for contender in others:
        if groups[-1] and used + contender.peak_bytes > room:
            groups.append([])
            used = 0
        groups[-1].append(contender)
        used += contender.peak_bytes
    return groups
