"""Points of the plot and their labels, which cover neither each other nor what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from quant_explorer.core.measurement import Status
from quant_explorer.core.stats import Interval
from quant_explorer.report.columns import display_names
from quant_explorer.report.labels import Anchor, Box, place_labels
from quant_explorer.report.results import Results, VariantResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#404040"
LARGEST_AREA, SMALLEST_AREA = 350.0, 30.0
FONT_SIZE = 8.5
LEADER_BEYOND = 14.0
MOST_LABELS = 12


@dataclass(frozen=True)
class Point:
    """A variant as it is drawn: milliseconds, per cent, bytes."""

    name: str
    runtime: str
    latency_ms: float
    latency_ci_ms: tuple[float, float]
    accuracy: float
    accuracy_ci: tuple[float, float]
    size_bytes: int
    on_frontier: bool | None


@dataclass(frozen=True)
class Panel:
    """What one panel shows: its points and the corners of the frontier line, in units of the axes."""

    points: tuple[Point, ...]
    line: tuple[tuple[float, float], ...]


def drawable_points(results: Results, model: str) -> tuple[Point, ...]:
    """Return the variants of a model that have a size, a latency and an accuracy or agreement."""
    points = []
    variants = results.of_model(model)
    names = display_names([variant for variant in variants if variant.status is Status.OK])
    for variant in variants:
        latency = variant.latency.get(str(results.run.ranked_batch))
        scored = _accuracy(variant)
        if latency is None or latency.p50_s is None or variant.size.bytes is None or scored is None:
            continue
        interval = latency.p50_ci_s or Interval(latency.p50_s, latency.p50_s)
        points.append(
            Point(
                names.get(variant.name, variant.name),
                variant.runtime,
                latency.p50_s * 1e3,
                (interval.low * 1e3, interval.high * 1e3),
                scored[0] * 100,
                (scored[1].low * 100, scored[1].high * 100),
                variant.size.bytes,
                variant.frontier.on_frontier,
            )
        )
    return tuple(points)


def _accuracy(variant: VariantResult) -> tuple[float, Interval] | None:
    if variant.accuracy:
        return variant.accuracy.top1, variant.accuracy.top1_ci
    if variant.agreement:
        return variant.agreement.top1_agreement, variant.agreement.top1_agreement_ci
    return None


def marker_area(point: Point, points: Sequence[Point]) -> float:
    """Return a marker's area (points squared), proportional to the size of what it stands for."""
    largest = max(one.size_bytes for one in points)
    return max(LARGEST_AREA * point.size_bytes / largest, SMALLEST_AREA)


def label_points(axes: Axes, panel: Panel, dpi: float) -> None:
    """Write the names of a panel's points beside them; the figure's layout must be final."""
    points = panel.points
    if not points:
        return
    named = _worth_a_label(points)
    anchors = [_anchor(axes, point, points, dpi) for point in named]
    window = axes.get_window_extent()
    frame = Box(window.x0, window.y0, window.x1, window.y1)
    rest = [point for point in points if point not in named]
    obstacles = [
        *_error_boxes(axes, named),
        *_line_boxes(axes, panel.line),
        *(_marker_box(_anchor(axes, point, points, dpi)) for point in rest),
    ]
    for point, anchor, box in zip(named, anchors, place_labels(anchors, obstacles, frame), strict=True):
        _write(axes, point.name, anchor, box)


def _worth_a_label(points: Sequence[Point]) -> Sequence[Point]:
    """All points where they are few; otherwise the first (the baseline) and those on the frontier."""
    if len(points) <= MOST_LABELS:
        return points
    return [point for number, point in enumerate(points) if number == 0 or point.on_frontier]


def _anchor(axes: Axes, point: Point, points: Sequence[Point], dpi: float) -> Anchor:
    trial = axes.annotate(point.name, (point.latency_ms, point.accuracy), fontsize=FONT_SIZE)
    extent = trial.get_window_extent()
    trial.remove()
    x, y = axes.transData.transform((point.latency_ms, point.accuracy)).tolist()
    radius = math.sqrt(marker_area(point, points)) / 2 * dpi / 72
    return Anchor(x, y, radius, extent.width + 6, extent.height + 4)


def _marker_box(anchor: Anchor) -> Box:
    x, y, radius = anchor.x, anchor.y, anchor.radius
    return Box(x - radius, y - radius, x + radius, y + radius)


def _error_boxes(axes: Axes, points: Sequence[Point]) -> list[Box]:
    boxes = []
    for point in points:
        (left, right), (low, high) = point.latency_ci_ms, point.accuracy_ci
        boxes.append(_segment_box(axes, (point.latency_ms, low), (point.latency_ms, high)))
        boxes.append(_segment_box(axes, (left, point.accuracy), (right, point.accuracy)))
    return boxes


def _line_boxes(axes: Axes, line: Sequence[tuple[float, float]]) -> list[Box]:
    return [_segment_box(axes, start, end) for start, end in pairwise(line)]


def _segment_box(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> Box:
    (x0, y0), (x1, y1) = axes.transData.transform([start, end]).tolist()
    return Box(min(x0, x1) - 3, min(y0, y1) - 3, max(x0, x1) + 3, max(y0, y1) + 3)


def _write(axes: Axes, text: str, anchor: Anchor, box: Box) -> None:
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    nearest = (min(max(anchor.x, box.left), box.right), min(max(anchor.y, box.bottom), box.top))
    if math.dist(nearest, (anchor.x, anchor.y)) - anchor.radius > LEADER_BEYOND:
        ends = axes.transData.inverted().transform([nearest, (anchor.x, anchor.y)])
        axes.plot(ends[:, 0], ends[:, 1], color=INK, linewidth=0.5, zorder=2.5, scalex=False, scaley=False)
    axes.annotate(
        text, middle, xycoords="figure pixels", ha="center", va="center", fontsize=FONT_SIZE, zorder=5
    )
