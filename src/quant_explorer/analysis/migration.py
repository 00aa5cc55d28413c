"""Results documents of earlier schema versions, in the present one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from quant_explorer.analysis.results import RunInfo
from quant_explorer.core.settings.declaration import settings_of
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings


@dataclass(frozen=True)
class _RunInfo1:
    """What schema 1 records of a run; a subset of 0 was all images, `qat_epochs` those of all fine-tuning."""

    data: str
    data_digest: str
    model: str
    weights: str
    seed: int
    threads: int
    epochs: int
    qat_epochs: int
    train_subset: int
    test_subset: int
    batch_sizes: tuple[int, ...]
    rounds: int
    precision: float
    time_limit_s: float
    engine: str
    version: str

    def current(self) -> RunInfo:
        """Return the same in the present schema; raises SettingsError for what no run can have been."""
        settings = Settings(
            data=self.data,
            model=self.model,
            weights=Path(self.weights) if self.weights else None,
            seed=self.seed,
            epochs=self.epochs,
            fine_tune_epochs=self.qat_epochs,
            train_subset=self.train_subset or None,
            test_subset=self.test_subset or None,
            engine=self.engine,
        )
        protocol = MeasurementProtocol(
            threads=self.threads,
            batch_sizes=self.batch_sizes,
            rounds=self.rounds,
            precision=self.precision,
            time_limit_s=self.time_limit_s,
        )
        known = {*self.__dataclass_fields__, "fine_tune_epochs"}
        declared = (*settings_of(Settings), *settings_of(MeasurementProtocol))
        unrecorded = tuple(setting.name for setting in declared if setting.name not in known)
        return RunInfo(settings, protocol, self.data_digest, self.version, unrecorded)


class _Document1(msgspec.Struct):
    run: _RunInfo1
    others: tuple[msgspec.Raw, ...] = ()


def from_schema_1(content: bytes) -> bytes:
    """Return a document of schema 1 in schema 2, which holds all settings of the run.

    Raises msgspec.MsgspecError for what is no such document.
    """
    earlier = msgspec.json.decode(content, type=_Document1)
    document = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    changed = {
        "schema_version": msgspec.json.encode(2),
        "run": msgspec.json.encode(earlier.run.current(), enc_hook=str),
        "others": msgspec.json.encode([msgspec.Raw(from_schema_1(bytes(other))) for other in earlier.others]),
    }
    return msgspec.json.encode(document | {name: msgspec.Raw(part) for name, part in changed.items()})
