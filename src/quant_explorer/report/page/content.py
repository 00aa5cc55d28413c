"""What the page holds, in the units that it shows: milliseconds, megabytes, per cent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from quant_explorer.core.recipe import BASELINE_CONFIG


@dataclass(frozen=True)
class Axis:
    """A measured figure that can be an axis, a column to sort by, or a point's size."""

    key: str
    label: str
    unit: str
    direction: Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Figure:
    """A figure with its interval, where it has one."""

    point: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassChange:
    """The change of one class's accuracy; `marked` when it stays after Holm's correction."""

    diff_pp: float
    marked: bool


@dataclass(frozen=True)
class MemoryLevels:
    """Resident memory in megabytes at one batch size."""

    batch: int
    floor: float
    loaded: float
    peak: float


@dataclass(frozen=True)
class Row:
    """One variant. `figures` and `missing` (why there is none) are keyed by axis.

    `number` is its place in the study, by which what is equal is ordered; `dominated_by` holds such numbers.
    `classes` has an entry for each class of the sheet, None where it was not compared; `spread` maps a batch
    size to the 5th, 25th, 50th, 75th and 95th percentile of its calls in milliseconds; `executed` maps a
    precision to its share of the multiply-accumulates. `search` is the change on the search split, in
    percentage points.
    """

    number: int
    name: str
    runtime: str
    steps: tuple[str, ...]
    figures: dict[str, Figure]
    missing: dict[str, str]
    on_frontier: bool | None
    probability: float | None
    dominated_by: tuple[int, ...]
    group: str
    unranked: str
    verdict: str
    classes: tuple[ClassChange | None, ...] = ()
    memory: tuple[MemoryLevels, ...] = ()
    spread: dict[str, tuple[float, ...]] = field(default_factory=dict)
    executed: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    search: Figure | None = None


@dataclass(frozen=True)
class FailedVariant:
    """A variant without figures."""

    name: str
    status: str
    reason: str


@dataclass(frozen=True)
class MedianEnds:
    """How the script finds the interval of a median of n rounds; keyed by n.

    `position` is the place (from 1) of the lower end among the sorted values, between two of which it is
    interpolated; the upper end is as far from the other side. Below the fewest rounds for that, `factor`
    times the standard deviation of the logarithms is the distance of both ends from the median.
    """

    position: dict[str, float]
    factor: dict[str, float]


@dataclass(frozen=True)
class Rounds:
    """The rounds of one batch size, for direct comparisons and for their course over time.

    Arrays are little-endian 32-bit floats in Base64, NaN where nothing was timed: `baseline_ms` has the shape
    (rounds,), `contrasts` the shape (rows, rounds, passes) with log(time / the baseline's).
    `through_baseline` maps "i,j" to how many times faster row i is than the slower row j, for those that
    share no round and whose intervals overlap.
    """

    batch: int
    rounds: int
    passes: int
    baseline_ms: str
    contrasts: str
    through_baseline: dict[str, Figure]


@dataclass(frozen=True)
class Pairs:
    """How many images one row got right and the other did not, for direct comparisons of two accuracies.

    Arrays as in `Rounds`, of shape (rows, rows): `gained` counts what row i alone got right beside row j,
    `shared` the images that both were scored on. Of an untrained model "right" is what FP32 answers.
    """

    gained: str
    shared: str


@dataclass(frozen=True)
class Sheet:
    """One model in one environment (of a sweep: of one seed); what is in two sheets is never in one plot.

    `answer`, `certainty`, `picks` and `distrust` are sentences, as are `choices`, which say what each budget
    of a sweep picks; `export` is the command that exports the answer, "" without one; `conditions` and
    `settings` are names with values. `ranked` are the axes of the frontier. `margin_pp` and the shares are
    what decides a tie. A limit of the drop from `search_least_pp` on is decided on the search split; none
    where that is None.
    """

    title: str
    model: str
    answer: str
    certainty: tuple[str, ...]
    picks: tuple[str, ...]
    distrust: tuple[str, ...]
    axes: tuple[Axis, ...]
    ranked: tuple[str, ...]
    batches: tuple[int, ...]
    rows: tuple[Row, ...]
    failures: tuple[FailedVariant, ...]
    classes: tuple[str, ...]
    all_classes: int
    rounds: tuple[Rounds, ...]
    ends: MedianEnds
    margin_pp: float
    epsilon_latency: float
    epsilon_size: float
    conditions: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    choices: tuple[str, ...] = ()
    search_least_pp: float | None = None
    pairs: Pairs | None = None
    export: str = ""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that have variants, in the order first seen."""
        return tuple(dict.fromkeys(row.runtime for row in self.rows))

    @property
    def batch(self) -> int:
        """The batch size whose latency is an axis of the frontier."""
        return self.batches[0]

    def label(self, key: str) -> str:
        """The name of an axis, with its unit."""
        return next((f"{axis.label}, {axis.unit}" for axis in self.axes if axis.key == key), key)

    def name_of(self, number: int) -> str:
        """The name of the row with this number."""
        return next(row.name for row in self.rows if row.number == number)

    def fp32_of(self, row: Row) -> Row | None:
        """The FP32 baseline of a row's own runtime."""
        return next((some for some in self.rows if some.name == f"{BASELINE_CONFIG}@{row.runtime}"), None)

    @property
    def costs(self) -> tuple[str, ...]:
        """What can be asked to be least."""
        keys = {axis.key for axis in self.axes}
        return ("latency", "size", "memory", *(("energy",) if "energy" in keys else ()))


@dataclass(frozen=True)
class Page:
    """The whole page: at least one sheet."""

    title: str
    version: str
    sheets: tuple[Sheet, ...]
