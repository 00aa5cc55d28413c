"""What a worker and its parent say to each other over the pipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quant_explorer.core.contracts import Batch, Metric
from quant_explorer.core.measurement import EnergyBlock, Executed, Observation, PeakMemory
from quant_explorer.core.recipe import ParameterValue


@dataclass(frozen=True)
class Loading:
    """What a worker does at once: import a runtime by its path, and keep to these cores."""

    runtime: str
    options: tuple[tuple[str, ParameterValue], ...]
    cores: tuple[int, ...]


@dataclass(frozen=True)
class Opening:
    """What a worker opens: the folder of an artifact, with the options that its manifest has for it."""

    options: tuple[tuple[str, ParameterValue], ...]
    folder: str


@dataclass(frozen=True)
class Opened:
    """`cold_start_s` is open plus first call. Memory is resident bytes; None with a reason if unknown."""

    cold_start_s: float
    floor_bytes: int | None
    loaded_bytes: int | None
    memory_reason: str | None


@dataclass(frozen=True)
class Open:
    """Open the artifact and call it once on `batch`."""

    opening: Opening
    batch: Batch


@dataclass(frozen=True)
class Hold:
    """Keep `batch` as the one that is timed."""

    batch: Batch


@dataclass(frozen=True)
class Time:
    """Time one block of calls on the held batch, after so many unmeasured ones."""

    warmup_calls: int


@dataclass(frozen=True)
class MeasureMemory:
    """Measure peak memory at this batch."""

    batch: Batch


@dataclass(frozen=True)
class MeasureEnergy:
    """Measure the energy of a block of calls on this batch, by the counters below `root`."""

    batch: Batch
    root: Path


@dataclass(frozen=True)
class Observe:
    """Observe the artifact by a metric, on this batch."""

    metric: Metric
    batch: Batch


@dataclass(frozen=True)
class Run:
    """Return the logits of a batch."""

    batch: Batch


@dataclass(frozen=True)
class Inspect:
    """Report the precision that multiply-accumulates ran in, on this batch."""

    batch: Batch


Request = Open | Hold | Time | MeasureMemory | MeasureEnergy | Observe | Run | Inspect
Answer = Opened | PeakMemory | Executed | Observation | Batch | tuple[int, ...] | EnergyBlock | None


@dataclass(frozen=True)
class RequestFailure:
    """A request that raised inside the worker."""

    reason: str
