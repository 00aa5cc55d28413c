"""Points of the plot and their labels, which cover neither each other nor what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.report.columns import display_names
from quant_explorer.report.labels import Anchor, Box, place_labels
from quant_explorer.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#404040"
LARGEST_AREA, SMALLEST_AREA = 350.0, 30.0
FONT_SIZE = 8.5
LEADER_BEYOND = 14.0
MOST_LABELS = 12
GROUND = {"facecolor": "#FFFFFF", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}


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


@dataclass(frozen=True)
class Mark:
    """A marker and the text beside it: place and intervals in units of the axes, area in points squared."""

    text: str
    x: float
    y: float
    x_interval: tuple[float, float]
    y_interval: tuple[float, float]
    area: float


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
    rest = [point for point in points if point not in named]
    label_marks(
        axes, [_mark(one, points) for one in named], [_mark(one, points) for one in rest], [panel.line], dpi
    )


def label_marks(
    axes: Axes,
    named: Sequence[Mark],
    others: Sequence[Mark],
    lines: Sequence[Sequence[tuple[float, float]]],
    dpi: float,
    *,
    crowded: bool = False,
) -> tuple[Box | None, ...]:
    """Write the texts of `named` beside their markers and return where, in pixels of the figure.

    The figure's layout must be final. Texts avoid all markers, the intervals of `named` and the lines, and
    cover as little as they can where no place is free. When it is `crowded` they avoid the intervals of
    `others` too, have a white ground, and those that would cover a marker or a text are left out (None).
    """
    anchors = [_anchor(axes, mark, dpi) for mark in named]
    window = axes.get_window_extent()
    frame = Box(window.x0, window.y0, window.x1, window.y1)
    rest = [_marker_box(_anchor(axes, mark, dpi)) for mark in others]
    barred = [*named, *others] if crowded else named
    obstacles = [*_error_boxes(axes, barred), *_line_boxes(axes, lines), *rest]
    markers = [*(_marker_box(anchor) for anchor in anchors), *rest]
    kept: list[Box | None] = []
    places = place_labels(anchors, obstacles, frame, leaders=crowded)
    for mark, anchor, box in zip(named, anchors, places, strict=True):
        taken = [*markers, *(other for other in kept if other is not None)]
        free = box.overlap(frame) > box.area - 1 and all(box.overlap(other) < 1 for other in taken)
        kept.append(box if free or not crowded else None)
        if kept[-1] is not None:
            _write(axes, mark.text, anchor, box, dpi, GROUND if crowded else None)
    return tuple(kept)


def _worth_a_label(points: Sequence[Point]) -> Sequence[Point]:
    """All points where they are few; otherwise the first (the baseline) and those on the frontier."""
    if len(points) <= MOST_LABELS:
        return points
    return [point for number, point in enumerate(points) if number == 0 or point.on_frontier]


def _mark(point: Point, points: Sequence[Point]) -> Mark:
    area = marker_area(point, points)
    return Mark(point.name, point.latency_ms, point.accuracy, point.latency_ci_ms, point.accuracy_ci, area)


def _anchor(axes: Axes, mark: Mark, dpi: float) -> Anchor:
    trial = axes.annotate(mark.text, (mark.x, mark.y), fontsize=FONT_SIZE)
    extent = trial.get_window_extent()
    trial.remove()
    x, y = axes.transData.transform((mark.x, mark.y)).tolist()
    return Anchor(x, y, math.sqrt(mark.area) / 2 * dpi / 72, extent.width + 6, extent.height + 4)


def _marker_box(anchor: Anchor) -> Box:
    x, y, radius = anchor.x, anchor.y, anchor.radius
    return Box(x - radius, y - radius, x + radius, y + radius)


def _error_boxes(axes: Axes, marks: Sequence[Mark]) -> list[Box]:
    boxes = []
    for mark in marks:
        (left, right), (low, high) = mark.x_interval, mark.y_interval
        boxes.append(_segment_box(axes, (mark.x, low), (mark.x, high)))
        boxes.append(_segment_box(axes, (left, mark.y), (right, mark.y)))
    return boxes


def _line_boxes(axes: Axes, lines: Sequence[Sequence[tuple[float, float]]]) -> list[Box]:
    return [_segment_box(axes, start, end) for line in lines for start, end in pairwise(line)]


def _segment_box(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> Box:
    (x0, y0), (x1, y1) = axes.transData.transform([start, end]).tolist()
    return Box(min(x0, x1) - 3, min(y0, y1) - 3, max(x0, x1) + 3, max(y0, y1) + 3)


def _write(
    axes: Axes, text: str, anchor: Anchor, box: Box, dpi: float, ground: dict[str, Any] | None
) -> None:
    middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
    nearest = box.nearest(anchor.x, anchor.y)
    if math.dist(nearest, (anchor.x, anchor.y)) - anchor.radius > LEADER_BEYOND:
        ends = axes.transData.inverted().transform([nearest, (anchor.x, anchor.y)])
        axes.plot(ends[:, 0], ends[:, 1], color=INK, linewidth=0.5, zorder=2.5, scalex=False, scaley=False)
    # Points and not pixels, so that a text stays where it is at another resolution (SVG has 72 dpi).
    place = (middle[0] * 72 / dpi, middle[1] * 72 / dpi)
    axes.annotate(
        text,
        place,
        xycoords="figure points",
        ha="center",
        va="center",
        fontsize=FONT_SIZE,
        zorder=5,
        bbox=ground,
    )
