"""The study file: everything that was observed, append-only, one JSON object a line, resumable by digest."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quant_explorer.core.cost.records import FloatModel, MachinePeaks
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.errors import StorageError, StudyError, explain
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import (
    Block,
    Measurement,
    ReportSplit,
    Round,
    Status,
    TimingEnd,
    TimingGroup,
)

SCHEMA_VERSION = 2
# Its rounds had one block a variant, in `order` and `calls_ns`.
_ONE_BLOCK_VERSION = 1

Record = Environment | ReportSplit | Measurement | Round | TimingGroup | TimingEnd | FloatModel | MachinePeaks
_KINDS: dict[str, type[Record]] = {
    "environment": Environment,
    "split": ReportSplit,
    "measurement": Measurement,
    "round": Round,
    "timing_group": TimingGroup,
    "timing_end": TimingEnd,
    "float_model": FloatModel,
    "peaks": MachinePeaks,
}
_NAMES = {record: kind for kind, record in _KINDS.items()}


@dataclass
class StudyFile:
    """The records of one study file, in the order they were observed.

    Only this class writes the file. A line is written whole or, when the process is killed while
    writing, dropped at the next load.
    """

    path: Path
    records: list[Record] = field(default_factory=list)
    _whole_bytes: int = 0

    @classmethod
    def load(cls, path: Path) -> StudyFile:
        """Read a study; a missing file is an empty study.

        Raises StudyError with the line number for a record that cannot be read or has another schema
        version.
        """
        study = cls(path)
        if not path.exists():
            return study
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StudyError(f"{path}: cannot be read ({error.strerror or explain(error)})") from error
        complete, newline, _ = content.rpartition(b"\n")
        study._whole_bytes = len(complete) + len(newline)
        for number, line in enumerate(complete.splitlines(), start=1):
            study.records.append(_decode(line, f"{path}:{number}"))
        return study

    def append(self, record: Record) -> None:
        """Add a record and see it on disk before returning; raises StorageError when the disk is full."""
        line = _encode(record)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                # What a killed process or a full disk left half-written ends here.
                stream.truncate(self._whole_bytes)
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            reason = (
                f"cannot be written ({error.strerror or explain(error)}); what was recorded before is kept"
            )
            raise StorageError(f"{self.path}: {reason}") from error
        self._whole_bytes += len(line)
        self.records.append(record)

    @property
    def environments(self) -> dict[str, Environment]:
        """Environments by digest."""
        return {record.digest: record for record in self.records if isinstance(record, Environment)}

    @property
    def visits(self) -> tuple[Environment, ...]:
        """Environments, in the order in which each was last begun to measure in."""
        begun: dict[str, Environment] = {}
        for record in self.records:
            if isinstance(record, Environment):
                begun.pop(record.digest, None)
                begun[record.digest] = record
        return tuple(begun.values())

    @property
    def splits(self) -> dict[str, ReportSplit]:
        """Labels of the report splits by digest."""
        return {record.digest: record for record in self.records if isinstance(record, ReportSplit)}

    def float_model(self, model: str, steps: tuple[str, ...]) -> FloatModel | None:
        """What is known of the float model that a variant with `steps` is made of, the latest of each."""
        made = [
            record
            for record in reversed(self.records)
            if isinstance(record, FloatModel)
            and record.model == model
            and record.steps == steps[: len(record.steps)]
        ]
        return max(made, key=lambda record: len(record.steps), default=None)

    def peaks(self, environment: str) -> Peaks | None:
        """The roofs of the machine of an environment, where they were recorded."""
        found = [
            record.peaks
            for record in self.records
            if isinstance(record, MachinePeaks) and record.environment == environment
        ]
        return found[-1] if found else None

    def measurements(self, environment: str) -> dict[str, Measurement]:
        """The latest measurement of each variant by digest, in the order first seen."""
        return {
            record.variant.digest: record
            for record in self.records
            if isinstance(record, Measurement) and record.environment == environment
        }

    def finished(self, environment: str) -> set[str]:
        """Digests that need not be measured again: a failure is never cached as a result."""
        return {
            digest
            for digest, measurement in self.measurements(environment).items()
            if measurement.status is Status.OK
        }

    def rounds(self, environment: str, batch_size: int) -> list[Round]:
        """The rounds at one batch size, in order."""
        return [
            record
            for record in self.records
            if isinstance(record, Round)
            and record.environment == environment
            and record.batch_size == batch_size
        ]

    def timing_groups(self, environment: str, baseline: str) -> list[TimingGroup]:
        """The groups that were timed against a baseline, in the order they began."""
        return [
            record
            for record in self.records
            if isinstance(record, TimingGroup)
            and record.environment == environment
            and record.baseline == baseline
        ]

    def timing_ends(self, environment: str) -> list[TimingEnd]:
        """How the rounds of each group and batch size ended; of one that was timed on, the last end."""
        ends = {
            (record.group, record.batch_size): record
            for record in self.records
            if isinstance(record, TimingEnd) and record.environment == environment
        }
        return list(ends.values())


_REMEDY = "delete this line and all after it, and the same command measures again what they held"


def _encode(record: Record) -> bytes:
    wrapped = {"schema_version": SCHEMA_VERSION, "kind": _NAMES[type(record)], "record": record}
    return msgspec.json.encode(wrapped) + b"\n"


def _decode(line: bytes, where: str) -> Record:
    try:
        wrapped = json.loads(line)
        version, kind, content = wrapped["schema_version"], wrapped["kind"], wrapped["record"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StudyError(f"{where}: not a study record ({explain(error)}); {_REMEDY}") from error
    if version not in (_ONE_BLOCK_VERSION, SCHEMA_VERSION):
        readable = f"{_ONE_BLOCK_VERSION} and {SCHEMA_VERSION}"
        raise StudyError(f"{where}: schema version {version}, this program reads {readable}")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise StudyError(f"{where}: unknown kind {kind!r}. Allowed: {', '.join(_KINDS)}.")
    try:
        if version == _ONE_BLOCK_VERSION and kind == "round":
            return _in_one_pass(msgspec.convert(content, type=_OneBlockRound))
        return msgspec.convert(content, type=_KINDS[kind])
    except (msgspec.ValidationError, KeyError, ValueError) as error:
        raise StudyError(f"{where}: {explain(error)}; {_REMEDY}") from error


class _OneBlockRound(msgspec.Struct):
    environment: str
    group: str
    batch_size: int
    number: int
    order: tuple[str, ...]
    calls_ns: dict[str, tuple[int, ...]]


def _in_one_pass(old: _OneBlockRound) -> Round:
    blocks = tuple(Block(key, old.calls_ns[key]) for key in old.order)
    return Round(old.environment, old.group, old.batch_size, old.number, (blocks,))
