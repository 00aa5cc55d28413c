"""The grid of a sweep: pruning x precision, the budgets it is held against, and what estimates rest on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from quant_explorer.core.host.environment import Environment
from quant_explorer.core.quantspec import Precision
from quant_explorer.core.settings.groups import DecisionRules

Percentile = Literal["p50", "p99"]
Cost = Literal["latency", "size", "memory", "energy"]


@dataclass(frozen=True)
class Cell:
    """One configuration of the grid: `pruning` is the share of channels that is asked to go."""

    config: str
    pruning: float
    precision: Precision


@dataclass(frozen=True)
class Budgets:
    """What a deployment allows; None is no limit, no runtimes are all.

    `memory_bytes` limits the peak memory above the runtime's own, `latency_s` the `percentile` of calls,
    `accuracy_drop_pp` the loss against the baseline. With `use_ci` an interval's bad end is held against the
    limit instead of the point.
    """

    size_bytes: float | None = None
    memory_bytes: float | None = None
    latency_s: float | None = None
    accuracy_drop_pp: float | None = None
    use_ci: bool = True
    percentile: Percentile = "p50"
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep's outputs are derived with, beside the studies of its seeds.

    `budgets` has one entry for each memory budget, at least one. `power_watts` turns latency into an
    energy proxy, `frequency_scale` (1 is this clock) into an estimate for a slower one. `gb_per_s` and
    `gmacs_per_s` stand for the measured roof where they are given. `configuration` is the whole file as
    it was understood, keys and values in their textual form.
    """

    model: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    budgets: tuple[Budgets, ...]
    power_watts: float | None = None
    frequency_scale: float = 1.0
    gb_per_s: float | None = None
    gmacs_per_s: float | None = None
    configuration: tuple[tuple[str, str], ...] = ()
    rules: DecisionRules = field(default_factory=DecisionRules)

    def cell(self, config: str) -> Cell | None:
        """Return the cell of a configuration, None for one that is not of the grid (a control)."""
        return next((cell for cell in self.cells if cell.config == config), None)


@dataclass(frozen=True)
class Reproducibility:
    """What it takes to do a sweep again.

    `git_commit` and `git_dirty` are of the source that quant-explorer ran from, None where that is no git
    checkout. `data_digests` has one entry a seed, since the splits are drawn by it.
    """

    command: tuple[str, ...]
    quant_explorer: str
    git_commit: str | None
    git_dirty: bool | None
    environment: Environment
    seeds: tuple[int, ...]
    data_digests: tuple[str, ...]
    configuration: tuple[tuple[str, str], ...]
    packages: dict[str, str]
