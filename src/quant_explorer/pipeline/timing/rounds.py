"""Latency of variants against each other: which are timed together, and what is timed already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quant_explorer.core.errors import WorkerError, explain
from quant_explorer.core.measurement import Measurement, Round, TimingEnd, TimingGroup
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.measure import status_of
from quant_explorer.pipeline.timing.comparison import Comparison, LostWorkerError
from quant_explorer.pipeline.timing.contender import Contender, group_by_memory


def time_variants(
    baseline: Contender, others: Sequence[Contender], experiment: Experiment, study: StudyFile
) -> tuple[str, ...]:
    """Time every contender at every batch size and record each round as it ends.

    Rounds that the study holds are not repeated. A variant whose worker fails is recorded with a status and
    a reason, and the rest of its group is timed without it, as a group of its own; the rounds until then
    are kept. Returns what went wrong, a message each.
    """
    problems: list[str] = []
    done = _Done(study, baseline, experiment.protocol)
    pending = [other for other in others if not done.is_timed(other.digest)]
    if not pending and done.is_timed(baseline.digest):
        return ()
    for members in _groups(baseline, pending, study):
        group = list(members)
        while True:
            try:
                record = _group_of(baseline, group)
                if record not in study.records:
                    study.append(record)
                Comparison(baseline, group, record.group, experiment, study).run_all(
                    done.unfinished(record.group)
                )
                break
            except LostWorkerError as lost:
                problems.append(f"timing {lost.contender.measurement.variant.name}: {explain(lost.error)}")
                if lost.contender is baseline:
                    return tuple(problems)
                study.append(_lost(lost.contender.measurement, lost.error))
                group = [contender for contender in group if contender is not lost.contender]
                if not group:
                    break
    return tuple(problems)


def _groups(baseline: Contender, pending: Sequence[Contender], study: StudyFile) -> list[list[Contender]]:
    """Return the groups to time: those that were begun as they were, the rest as fits in memory now."""
    waiting = {contender.digest: contender for contender in pending}
    groups: list[list[Contender]] = []
    for record in study.timing_groups(baseline.measurement.environment, baseline.digest):
        members = [digest for digest in record.members if digest != baseline.digest]
        if members and waiting.keys() >= set(members):
            groups.append([waiting.pop(digest) for digest in members])
    if waiting or not groups:
        groups += group_by_memory(baseline, list(waiting.values()))
    return groups


def _group_of(baseline: Contender, others: Sequence[Contender]) -> TimingGroup:
    members = tuple(sorted({baseline.digest, *(other.digest for other in others)}))
    return TimingGroup(
        baseline.measurement.environment, baseline.digest, digest_of({"group": list(members)}), members
    )


def _lost(measurement: Measurement, error: WorkerError) -> Measurement:
    return replace(measurement, status=status_of(error), reason=f"while it was timed: {explain(error)}")


@dataclass(frozen=True)
class _Done:
    """What the study holds of the rounds that a protocol asks for, against one baseline."""

    study: StudyFile
    baseline: Contender
    protocol: MeasurementProtocol

    @property
    def environment(self) -> str:
        """Where the baseline was measured."""
        return self.baseline.measurement.environment

    def is_timed(self, digest: str) -> bool:
        """Say whether a variant has all its rounds at every batch size."""
        ended = self._ended()
        return all(
            any(
                digest in record.keys and (record.group, size) in ended
                for record in self.study.rounds(self.environment, size)
            )
            for size in self.protocol.batch_sizes
        )

    def unfinished(self, group: str) -> dict[int, list[Round]]:
        """Return the rounds that a group has at each batch size that is not done."""
        ended = self._ended()
        return {
            size: self._rounds(group, size)
            for size in self.protocol.batch_sizes
            if (group, size) not in ended
        }

    def _ended(self) -> set[tuple[str, int]]:
        """Return the groups and batch sizes whose rounds are as many and as long as was asked for."""
        return {
            (end.group, end.batch_size)
            for end in self.study.timing_ends(self.environment)
            if end.baseline == self.baseline.digest
            and _suffices(end, self.protocol)
            and len(self._rounds(end.group, end.batch_size)) >= self.protocol.rounds
        }

    def _rounds(self, group: str, batch_size: int) -> list[Round]:
        return [round_ for round_ in self.study.rounds(self.environment, batch_size) if round_.group == group]


def _suffices(end: TimingEnd, protocol: MeasurementProtocol) -> bool:
    """Say whether what ended the rounds then would end them as soon now."""
    if end.stopped_by == "precision":
        return end.precision is None or end.precision <= protocol.precision
    if end.stopped_by == "time_limit":
        return end.time_limit_s is None or end.time_limit_s >= protocol.time_limit_s
    return True
