"""Measurement and Environment: raw values as they were observed. Statistics are derived, never stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from quant_explorer.core.quantspec import Precision


class Status(StrEnum):
    """How a variant's build and measurement ended."""

    OK = "ok"
    UNSUPPORTED = "unsupported"
    BUILD_FAILED = "build_failed"
    FAILED = "failed"
    DIED = "died"
    TIMED_OUT = "timed_out"

    @property
    def predicate(self) -> str:
        """What a sentence says of a variant with this status."""
        return _PREDICATES[self]

    @property
    def lasts(self) -> bool:
        """Whether another try would end the same: what is impossible, or could not be built."""
        return self in (Status.UNSUPPORTED, Status.BUILD_FAILED)

    def explain(self, reason: str | None) -> str:
        """The predicate with its reason."""
        return f"{self.predicate}: {reason or 'no reason was recorded'}"


_PREDICATES = {
    Status.OK: "was measured",
    Status.UNSUPPORTED: "is not possible",
    Status.BUILD_FAILED: "could not be built",
    Status.FAILED: "failed",
    Status.DIED: "died",
    Status.TIMED_OUT: "did not answer in time",
}


@dataclass(frozen=True)
class Variant:
    """One configuration on one runtime for one model. `digest` names its artifact and its results."""

    name: str
    config: str
    runtime: str
    model: str
    digest: str


@dataclass(frozen=True)
class FileSize:
    """One file a deployment needs, relative to the artifact's folder."""

    path: str
    bytes: int


@dataclass(frozen=True)
class Executed:
    """Multiply-accumulates of one image by the precision they ran in, from what was executed.

    `macs` maps a precision ("fp32", "bf16", "fp16", "int8") to a count. `kernels` names what ran
    (operators or kernels) with their counts of calls. `in_float` are the operators that multiplied in float
    beside others in INT8, with their layers where the runtime knows them, those of most work first.
    """

    macs: dict[str, int]
    kernels: dict[str, int]
    in_float: tuple[str, ...] = ()

    def fraction(self, precision: str) -> float:
        """Share of the multiply-accumulates in `precision`; 0.0 for a model without any."""
        total = sum(self.macs.values())
        return self.macs.get(precision, 0) / total if total else 0.0


@dataclass(frozen=True)
class PeakMemory:
    """Resident memory of the variant's own process at one batch size.

    `floor_bytes` after the runtime is imported, `loaded_bytes` after open, `peak_bytes` the high-water
    mark during inference. The reported figure is `peak_bytes - floor_bytes`.
    """

    batch_size: int
    floor_bytes: int
    loaded_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Predictions:
    """Outputs over a split, in the order of `positions` (positions in that split).

    `top1` is the predicted class of every image, `top5_hits` how many images had their label among
    the five largest logits. `trained` is False for a model that was not trained on these classes: it
    has no accuracy, only agreement with FP32. `sqnr_db` compares the logits with the FP32 baseline's:
    10 log10(sum of squares of the reference / sum of squares of the difference); None for the
    baseline itself and where the two are equal. `time_limit_s` is what was allowed for them. Raises
    ValueError unless every image has a position of its own and a predicted class.
    """

    positions: tuple[int, ...]
    top1: tuple[int, ...]
    top5_hits: int
    trained: bool
    sqnr_db: float | None = None
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        images = len(self.positions)
        own = len(set(self.positions)) == images and min(self.positions, default=0) >= 0
        if not own or len(self.top1) != images:
            raise ValueError(
                f"{images} positions and {len(self.top1)} predicted classes: each image needs a position of "
                "its own, from 0, and a class"
            )


@dataclass(frozen=True)
class EnergyBlock:
    """One block of calls and what the CPU packages took meanwhile, all of the machine's work included."""

    calls: int
    duration_s: float
    energy_j: float


@dataclass(frozen=True)
class Observation:
    """What a metric of `metrics/__init__.py:METRICS` found: a value a repetition; without any, the reason."""

    metric: str
    unit: str
    values: tuple[float, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Measurement:
    """What was found of one variant in one environment: everything but latency, which is comparative.

    With a status other than OK, `reason` says why, and the figures that were not reached are None.
    `precision` is the one that was asked for, None where it was not recorded; `executed` is what ran.
    `energy_reason` says why no counter of energy could be read; `energy` are the blocks of earlier
    versions, which measured it outside of the rounds.
    `preprocessing` says what was done to the images, and on whose word. `predictions` are of the report
    split, `search_predictions` of the search split, None where it holds no images or they were not recorded.
    """

    variant: Variant
    environment: str
    split: str
    status: Status
    reason: str | None = None
    files: tuple[FileSize, ...] = ()
    executed: Executed | None = None
    memory: tuple[PeakMemory, ...] = ()
    memory_reason: str | None = None
    cold_start_s: tuple[float, ...] = ()
    predictions: Predictions | None = None
    notes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    energy: tuple[EnergyBlock, ...] = ()
    energy_reason: str | None = None
    precision: Precision | None = None
    preprocessing: str = ""
    observations: tuple[Observation, ...] = ()
    search_predictions: Predictions | None = None


@dataclass(frozen=True)
class Block:
    """Consecutive calls of one worker, each in nanoseconds.

    `key` is the variant's digest, or `twin_key(digest)` for the baseline's A/A twin. Raises ValueError for
    no calls, and for calls that took no time.
    """

    key: str
    calls_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        if min(self.calls_ns, default=0) <= 0:
            raise ValueError(f"a block of {self.key} has no calls, or one that took no time")


@dataclass(frozen=True)
class Conditions:
    """What the measuring cores were like in a round; None for what the system does not tell.

    `waiting_share` is the time that ready workers waited for a core that other processes had, and
    `steal_share` what the host of a virtual machine took of the cores, both as shares of the time that
    timing took. `siblings` are the other hardware threads of the measuring cores.
    """

    load_average: float | None = None
    waiting_share: float | None = None
    steal_share: float | None = None
    governors: tuple[str, ...] = ()
    siblings: tuple[int, ...] = ()
    cpu_quota: float | None = None
    memory_limit_bytes: int | None = None

    @property
    def taken_share(self) -> float:
        """The share of time that others took of the measuring cores, as far as is known."""
        return (self.waiting_share or 0.0) + (self.steal_share or 0.0)


@dataclass(frozen=True)
class Round:
    """One interleaved round: every variant of a group opened once, and timed once in each pass.

    `passes` holds the blocks of each pass in the order they were timed. The baseline has several blocks in
    a pass, so that one is near every other block. `group` names the variants timed together; groups share
    baseline and twin. `opening_s` and `timing_s` are what the two parts of the round took.
    `energy` has a block of calls of each key where counters can be read, at batch 1 only.
    """

    environment: str
    group: str
    batch_size: int
    number: int
    passes: tuple[tuple[Block, ...], ...]
    opening_s: float | None = None
    timing_s: float | None = None
    conditions: Conditions | None = None
    energy: dict[str, EnergyBlock] = field(default_factory=dict)

    @property
    def keys(self) -> frozenset[str]:
        """Digests of the variants that were timed, and the twin's key."""
        return frozenset(block.key for blocks in self.passes for block in blocks)

    def calls_ns(self, key: str) -> tuple[int, ...]:
        """All timed calls of a variant or the twin, in order."""
        own = (block for blocks in self.passes for block in blocks if block.key == key)
        return tuple(ns for block in own for ns in block.calls_ns)


@dataclass(frozen=True)
class TimingGroup:
    """Variants that are timed together, the baseline with its twin among them, as long as it is not ended."""

    environment: str
    baseline: str
    group: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class TimingEnd:
    """Why the rounds of one group at one batch size ended.

    `stopped_by` is "precision" (every open variant's interval is narrow enough), "time_limit" or
    "rounds" (as many as were allowed). `settled` are the digests that stopped being timed early,
    because something better on every axis dominates them beyond their intervals. `precision` and
    `time_limit_s` are what was asked for then, None where that was not recorded.
    """

    environment: str
    group: str
    batch_size: int
    baseline: str
    stopped_by: str
    settled: tuple[str, ...] = field(default=())
    precision: float | None = None
    time_limit_s: float | None = None


@dataclass(frozen=True)
class ReportSplit:
    """Labels of the report split; `classes` name the model's outputs in order, `notes` are on the files.

    `search_labels` are those of the search split that belongs to it, empty where they were not recorded.
    A label that is no output raises ValueError.
    """

    digest: str
    data: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    notes: tuple[str, ...] = ()
    search_labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        labels = (*self.labels, *self.search_labels)
        if labels and not 0 <= min(labels) <= max(labels) < len(self.classes):
            raise ValueError(
                f"labels {min(labels)} to {max(labels)} of {len(self.classes)} classes; 0 is the first"
            )


def twin_key(digest: str) -> str:
    """Return the key of the A/A twin of the variant `digest` in a Block."""
    return f"{digest}#twin"
