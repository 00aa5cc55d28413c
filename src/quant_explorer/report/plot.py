"""The plot: accuracy against latency, marker area by size, error bars, and the frontier."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

import numpy as np

from quant_explorer.analysis.results import Results
from quant_explorer.core.units import format_kb
from quant_explorer.report.points import (
    INK,
    Point,
    drawable_points,
    marker_area,
    number_handle,
    write_number,
)
from quant_explorer.stats.frontier import Objective, on_frontier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, distinct for all common forms of colour blindness and by lightness in print.
ON_FRONTIER, DOMINATED, LINE, FAINT = "#0072B2", "#FFFFFF", "#D55E00", "#B0B0B0"
MARKERS = ("o", "s", "^", "D", "p", "v", "h", "P")
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
LOG_RANGE = 5.0
DPI = 150


def draw_pareto(results: Results) -> bytes:
    """Return a PNG with a panel for every model (and every environment); the same results, the same bytes."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(part, model) for part in (results, *results.others) for model in part.models]
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(7.2 * columns, 6.2 * rows), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (measured_in, model) in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, measured_in, model, several=bool(results.others))
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _draw_panel(axes: Axes, results: Results, model: str, *, several: bool) -> None:
    points = drawable_points(results, model)
    data = results.run.settings.data
    axes.set_title(f"{model} on {data}" + (f"\nenvironment {results.environment.digest}" if several else ""))
    if not points:
        axes.set_axis_off()
        message = "No variant has size, latency and accuracy."
        axes.text(0.5, 0.5, message, ha="center", va="center", transform=axes.transAxes)
        return
    untrained = any(variant.agreement for variant in results.of_model(model))
    axes.set_ylabel("top-1 agreement with FP32, %" if untrained else "top-1 accuracy, %")
    axes.set_xlabel(f"median latency at batch {results.run.ranked_batch}, ms")
    axes.grid(visible=True, color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    _draw_points(axes, points)
    latencies = [value for point in points for value in point.latency_ci_ms]
    set_limits(axes, latencies, [value for point in points for value in point.accuracy_ci])
    line = frontier_line(axes, [(point.latency_ms, point.accuracy) for point in points])
    xs, ys = zip(*line, strict=True)
    axes.plot(xs, ys, color=LINE, linestyle="--", linewidth=1.3, zorder=2)
    named = [point for number, point in enumerate(points) if number == 0 or point.on_frontier]
    named.sort(key=lambda point: point.latency_ms)
    for number, point in enumerate(named, start=1):
        write_number(axes, number, point.latency_ms, point.accuracy, marker_area(point, points))
    _draw_legend(axes, points, named)


def _shapes(points: Sequence[Point]) -> dict[str, str]:
    """Give each runtime a marker, in the order first seen."""
    return dict(zip(dict.fromkeys(point.runtime for point in points), cycle(MARKERS), strict=False))


def _draw_points(axes: Axes, points: Sequence[Point]) -> None:
    shapes = _shapes(points)
    for point in points:
        axes.errorbar(
            point.latency_ms,
            point.accuracy,
            xerr=error_lengths(point.latency_ms, point.latency_ci_ms),
            yerr=error_lengths(point.accuracy, point.accuracy_ci),
            fmt="none",
            ecolor=INK if point.on_frontier else FAINT,
            elinewidth=0.9,
            capsize=2,
            zorder=4 if point.on_frontier else 1.5,
        )
        axes.scatter(
            point.latency_ms,
            point.accuracy,
            s=marker_area(point, points),
            marker=shapes[point.runtime],
            facecolor=ON_FRONTIER if point.on_frontier else DOMINATED,
            edgecolor=INK,
            linewidth=0.9,
            alpha=0.85,
            zorder=3,
        )


def error_lengths(value: float, interval: tuple[float, float]) -> list[list[float]]:
    """Return an interval as the lengths of an error bar, below and above its value."""
    return [[max(value - interval[0], 0.0)], [max(interval[1] - value, 0.0)]]


def set_limits(axes: Axes, costs: Sequence[float], accuracies: Sequence[float]) -> None:
    """Give the axes room around the ends of all intervals; costs (x) are logarithmic over a wide range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(costs), max(costs)
    if low > 0 and high / low > LOG_RANGE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low / (high / low) ** 0.18, high * (high / low) ** 0.18)
    else:
        room = 0.2 * (high - low) or 0.2 * low or 1.0
        axes.set_xlim(max(low - room, 0.0), high + room)
    room = 0.25 * (max(accuracies) - min(accuracies)) or 1.0
    axes.set_ylim(min(accuracies) - room, max(accuracies) + room)
    # There is room for labels above 100 %, but nothing to read there.
    axes.set_yticks([tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= 100])


def frontier_line(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the boundary of what is dominated on the two axes: right of it and below it."""
    axis = (Objective("cost", "minimize", ""), Objective("accuracy", "maximize", "%"))
    best = on_frontier(np.array(points), axis)
    corners = sorted(points[i] for i in np.flatnonzero(best).tolist())
    (_, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    line = [(corners[0][0], bottom), corners[0]]
    for (_, level), corner in pairwise(corners):
        line += [(corner[0], level), corner]
    return [*line, (right, corners[-1][1])]


def _draw_legend(axes: Axes, points: Sequence[Point], named: Sequence[Point]) -> None:
    """Explain markers and lines, then name the numbered points."""
    from matplotlib.lines import Line2D

    def marker(face: str, area: float, text: str, shape: str = "o") -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=shape, markerfacecolor=face, markeredgecolor=INK,
            markersize=math.sqrt(area), label=text,
        )  # fmt: skip

    sizes = sorted({point.size_bytes: point for point in points}.items())
    shown = [sizes[0], sizes[-1]] if len(sizes) > 1 else sizes
    shapes = _shapes(points).items() if len(_shapes(points)) > 1 else ()
    handles = [
        marker(ON_FRONTIER, 60, "on the frontier of size, latency and accuracy"),
        marker(DOMINATED, 60, "dominated or not ranked"),
        Line2D([], [], color=LINE, linestyle="--", linewidth=1.3, label="frontier of the two axes drawn"),
        *(marker("#BBBBBB", marker_area(point, points), f"{format_kb(size)} kB") for size, point in shown),
        *(marker(DOMINATED, 60, runtime, shape) for runtime, shape in shapes),
        *(number_handle(number) for number in range(1, len(named) + 1)),
    ]
    labels = [
        *(str(handle.get_label()) for handle in handles[: len(handles) - len(named)]),
        *(point.name for point in named),
    ]
    axes.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False, fontsize=8,
        handletextpad=1.0, labelspacing=1.0,
    )  # fmt: skip
