"""One plot of a sweep: top-1 accuracy against a cost, with intervals, the frontier and the budgets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quant_explorer.core.measurement import Status
from quant_explorer.report.plot import FAINT, LINE, error_lengths, frontier_line, set_limits
from quant_explorer.report.points import INK, write_number
from quant_explorer.report.sweep.figures import (
    Entry,
    Look,
    draw_key,
    draw_legend,
    encode,
    marker,
    name_level,
    new_figure,
    say_nothing_is_drawn,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from quant_explorer.analysis.sweep.rows import SweepRow

# Points squared: fewer bits, a smaller marker.
AREAS = {"fp32": 120.0, "bf16": 82.0, "fp16": 54.0, "int8": 34.0}
LEGEND_AREA = 64.0
MOST_NAMED = 12
EDGE, HOLLOW, CROSS = 0.9, 1.5, 1.1

Cost = tuple[float, tuple[float, float]]


@dataclass(frozen=True)
class CostAxis:
    """A cost: `cost_of` gives a row's figure and its interval in the unit of `label`, or None."""

    file: str
    name: str
    label: str
    cost_of: Callable[[SweepRow], Cost | None]


@dataclass(frozen=True)
class _Point:
    """A row as it is drawn: place and intervals in units of the axes, area in points squared."""

    row: SweepRow
    x: float
    y: float
    x_interval: tuple[float, float]
    y_interval: tuple[float, float]
    area: float

    @property
    def name(self) -> str:
        return f"{self.row.config}@{self.row.runtime}"


def draw_cost(axis: CostAxis, rows: Sequence[SweepRow], look: Look) -> dict[str, bytes]:
    """Return the plot of one cost; where no row has it, the plot says so."""
    title = f"Top-1 accuracy against {axis.name}"
    points = _points(axis, rows)
    measured = sum(row.status == Status.OK for row in rows)
    if not points:
        missing = f"none has both a top-1 accuracy and {axis.name}."
        return say_nothing_is_drawn(
            axis.file, title, f"Nothing to draw: of {measured} measured variants\n{missing}"
        )
    seeds = list(dict.fromkeys(point.row.seed for point in points))
    figure, axes = new_figure(10.0, 6.6)
    axes.set_title(f"{title}\n{len(points)} of {measured} measured variants{_count_seeds(seeds)}")
    axes.set_xlabel(axis.label)
    axes.set_ylabel("top-1 accuracy, %")
    axes.grid(visible=True, color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    _draw_points(axes, points, look)
    costs = [end for point in points for end in point.x_interval]
    set_limits(axes, costs, [end for point in points for end in point.y_interval])
    lines = []
    for seed in seeds:
        places = [(point.x, point.y) for point in points if point.row.seed == seed]
        lines.append(frontier_line(axes, places))
        xs, ys = zip(*lines[-1], strict=True)
        axes.plot(xs, ys, color=LINE, linestyle="--", linewidth=1.3 if len(seeds) == 1 else 0.9, zorder=2)
    _draw_legend(figure, points, look, several=len(seeds) > 1)
    named = _worth_naming(points, {corner for line in lines for corner in line})
    for number, point in enumerate(named, start=1):
        write_number(axes, number, point.x, point.y, point.area)
    draw_key(figure, [point.name for point in named])
    return encode(axis.file, figure)


def _points(axis: CostAxis, rows: Sequence[SweepRow]) -> list[_Point]:
    points = []
    for row in rows:
        cost = axis.cost_of(row)
        if cost is None or row.top1 is None:
            continue
        low = row.top1 if row.top1_low is None else row.top1_low
        high = row.top1 if row.top1_high is None else row.top1_high
        area = AREAS.get(row.precision or "fp32", AREAS["fp32"])
        points.append(_Point(row, cost[0], 100 * row.top1, cost[1], (100 * low, 100 * high), area))
    return points


def _count_seeds(seeds: Sequence[int]) -> str:
    return f", a point for each of {len(seeds)} seeds" if len(seeds) > 1 else ""


def _worth_naming(points: Sequence[_Point], corners: Collection[tuple[float, float]]) -> list[_Point]:
    """Return the points to name, by cost.

    Those on the frontier of size, latency and accuracy are named, of more than a dozen only those at the
    corners of the line; each variant once, even if it has a point for every seed.
    """
    best = [point for point in points if point.row.on_frontier]
    if len(best) > MOST_NAMED:
        best = [point for point in best if (point.x, point.y) in corners]
    named: dict[str, _Point] = {}
    for point in best:
        named.setdefault(point.name, point)
    return sorted(named.values(), key=lambda point: point.x)


def _draw_points(axes: Axes, points: Sequence[_Point], look: Look) -> None:
    """Draw hollow markers, then filled ones, the small above the large; a cross is under its marker."""
    for best in (False, True):
        chosen = [point for point in points if bool(point.row.on_frontier) is best]
        _draw_intervals(axes, chosen, best=best)
        for number, area in enumerate(sorted({point.area for point in chosen}, reverse=True)):
            level = 3 + best / 2 + number / 10
            same = [point for point in chosen if point.area == area]
            crossed = [point for point in same if point.row.over_budget]
            axes.scatter(
                [point.x for point in crossed], [point.y for point in crossed], s=_cross(area), marker="x",
                color=INK, linewidth=CROSS, zorder=level - 0.05,
            )  # fmt: skip
            for runtime, shape in look.shapes.items():
                alike = [point for point in same if point.row.runtime == runtime]
                colours = [look.colours[point.row.pruning] for point in alike]
                axes.scatter(
                    [point.x for point in alike], [point.y for point in alike], s=area, marker=shape,
                    facecolor=colours if best else "#FFFFFF", edgecolor=INK if best else colours,
                    linewidth=EDGE if best else HOLLOW, zorder=level,
                )  # fmt: skip


def _cross(area: float) -> float:
    """Return the area of a cross whose arms show around a marker."""
    return 2 * area + 30


def _draw_intervals(axes: Axes, points: Sequence[_Point], *, best: bool) -> None:
    if not points:
        return
    across = np.hstack([error_lengths(point.x, point.x_interval) for point in points])
    upright = np.hstack([error_lengths(point.y, point.y_interval) for point in points])
    axes.errorbar(
        [point.x for point in points], [point.y for point in points], xerr=across, yerr=upright, fmt="none",
        ecolor=INK if best else FAINT, elinewidth=0.8 if best else 0.5, capsize=1.5 if best else 0,
        zorder=2.6 if best else 1.5,
    )  # fmt: skip


def _draw_legend(figure: Figure, points: Sequence[_Point], look: Look, *, several: bool) -> None:
    from matplotlib.lines import Line2D

    rows = [point.row for point in points]
    precisions = {row.precision for row in rows}
    runtimes = {row.runtime for row in rows}
    levels = {row.pruning for row in rows}
    hollow = marker("o", LEGEND_AREA, "#FFFFFF", width=HOLLOW)
    cross = marker("x", _cross(LEGEND_AREA), INK, width=CROSS)
    line = Line2D([], [], color=LINE, linestyle="--", linewidth=1.3)
    states: list[Entry] = [
        (marker("o", LEGEND_AREA, INK), "on the frontier of size,\nlatency and accuracy"),
        (hollow, "dominated or not ranked"),
        ((cross, hollow), "rejected: over a budget"),
        (line, "frontier of the two axes" + (",\none for each seed" if several else "")),
    ]
    draw_legend(
        figure,
        [
            ("state", states),
            (
                "colour: pruning level",
                [
                    (marker("o", LEGEND_AREA, look.colours[colour]), name_level(colour))
                    for colour in look.colours
                    if colour in levels
                ],
            ),
            (
                "size: precision",
                [
                    (marker("o", area, "#BBBBBB"), precision)
                    for precision, area in AREAS.items()
                    if precision in precisions
                ],
            ),
            (
                "shape: runtime",
                [
                    (marker(look.shapes[shape], LEGEND_AREA, "#BBBBBB"), shape)
                    for shape in look.shapes
                    if shape in runtimes
                ],
            ),
        ],
    )
