"""One plot of a sweep: top-1 accuracy against a cost, with intervals, the frontier and the budgets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quant_explorer.core.measurement import Status
from quant_explorer.report.annotate import INK, MOST_LABELS, Mark, label_marks
from quant_explorer.report.plot import FAINT, LINE, error_lengths, frontier_line, set_limits
from quant_explorer.report.sweep.figures import (
    Entry,
    Look,
    draw_legend,
    encode,
    marker,
    name_level,
    new_figure,
    say_nothing_is_drawn,
    settle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from quant_explorer.analysis.sweep.rows import SweepRow

# Points squared: fewer bits, a smaller marker.
AREAS = {"fp32": 120.0, "bf16": 82.0, "fp16": 54.0, "int8": 34.0}
LEGEND_AREA = 64.0
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
    row: SweepRow
    mark: Mark


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
    costs = [end for point in points for end in point.mark.x_interval]
    set_limits(axes, costs, [end for point in points for end in point.mark.y_interval])
    lines = []
    for seed in seeds:
        places = [(point.mark.x, point.mark.y) for point in points if point.row.seed == seed]
        lines.append(frontier_line(axes, places))
        xs, ys = zip(*lines[-1], strict=True)
        axes.plot(xs, ys, color=LINE, linestyle="--", linewidth=1.3 if len(seeds) == 1 else 0.9, zorder=2)
    _draw_legend(figure, points, look, several=len(seeds) > 1)
    settle(figure)
    named, others = _worth_a_label(points, {corner for line in lines for corner in line})
    written = label_marks(axes, named, others, lines, figure.dpi, crowded=True)
    if omitted := written.count(None):
        axes.set_title(f"{axes.get_title()}; {omitted} names on the frontier left out for want of room")
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
        text = f"{row.config}@{row.runtime}"
        points.append(
            _Point(row, Mark(text, cost[0], 100 * row.top1, cost[1], (100 * low, 100 * high), area))
        )
    return points


def _count_seeds(seeds: Sequence[int]) -> str:
    return f", a point for each of {len(seeds)} seeds" if len(seeds) > 1 else ""


def _worth_a_label(
    points: Sequence[_Point], corners: Collection[tuple[float, float]]
) -> tuple[list[Mark], list[Mark]]:
    """Return the marks to name and the others.

    Those on the frontier of size, latency and accuracy are named, of more than a dozen only those at the
    corners of the line; each variant once, even if it has a point for every seed.
    """
    best = [point for point in points if point.row.on_frontier]
    if len(best) > MOST_LABELS:
        best = [point for point in best if (point.mark.x, point.mark.y) in corners]
    named: dict[str, Mark] = {}
    others = []
    for point in points:
        if point in best and point.mark.text not in named:
            named[point.mark.text] = point.mark
        else:
            others.append(point.mark)
    return list(named.values()), others


def _draw_points(axes: Axes, points: Sequence[_Point], look: Look) -> None:
    """Draw hollow markers, then filled ones, the small above the large; a cross is under its marker."""
    for best in (False, True):
        chosen = [point for point in points if bool(point.row.on_frontier) is best]
        _draw_intervals(axes, [point.mark for point in chosen], best=best)
        for number, area in enumerate(sorted({point.mark.area for point in chosen}, reverse=True)):
            level = 3 + best / 2 + number / 10
            same = [one for one in chosen if one.mark.area == area]
            crossed = [one.mark for one in same if one.row.over_budget]
            axes.scatter(
                [mark.x for mark in crossed], [mark.y for mark in crossed], s=_cross(area), marker="x",
                color=INK, linewidth=CROSS, zorder=level - 0.05,
            )  # fmt: skip
            for runtime, shape in look.shapes.items():
                alike = [one for one in same if one.row.runtime == runtime]
                colours = [look.colours[one.row.pruning] for one in alike]
                axes.scatter(
                    [one.mark.x for one in alike], [one.mark.y for one in alike], s=area, marker=shape,
                    facecolor=colours if best else "#FFFFFF", edgecolor=INK if best else colours,
                    linewidth=EDGE if best else HOLLOW, zorder=level,
                )  # fmt: skip


def _cross(area: float) -> float:
    """Return the area of a cross whose arms show around a marker."""
    return 2 * area + 30


def _draw_intervals(axes: Axes, marks: Sequence[Mark], *, best: bool) -> None:
    if not marks:
        return
    across = np.hstack([error_lengths(mark.x, mark.x_interval) for mark in marks])
    upright = np.hstack([error_lengths(mark.y, mark.y_interval) for mark in marks])
    axes.errorbar(
        [mark.x for mark in marks], [mark.y for mark in marks], xerr=across, yerr=upright, fmt="none",
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
                    (marker("o", LEGEND_AREA, look.colours[one]), name_level(one))
                    for one in look.colours
                    if one in levels
                ],
            ),
            (
                "size: precision",
                [(marker("o", area, "#BBBBBB"), one) for one, area in AREAS.items() if one in precisions],
            ),
            (
                "shape: runtime",
                [
                    (marker(look.shapes[one], LEGEND_AREA, "#BBBBBB"), one)
                    for one in look.shapes
                    if one in runtimes
                ],
            ),
        ],
    )
