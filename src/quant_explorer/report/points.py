"""The points of a plot: what is drawn of each variant, and how those that are named are numbered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.report.columns import display_names
from quant_explorer.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

INK = "#404040"
LARGEST_AREA, SMALLEST_AREA = 350.0, 30.0
FONT_SIZE = 8.5
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
    largest = max(other.size_bytes for other in points)
    return max(LARGEST_AREA * point.size_bytes / largest, SMALLEST_AREA)


def write_number(axes: Axes, number: int, x: float, y: float, area: float) -> None:
    """Write a number above and right of the marker at (x, y), whose area is in points squared.

    Numbers are short enough to stay legible where names would cover each other; the legend has the names.
    """
    offset = 0.35 * math.sqrt(area) + 1.5
    axes.annotate(
        str(number), (x, y), (offset, offset), textcoords="offset points", fontsize=FONT_SIZE, zorder=5,
        bbox=GROUND,
    )  # fmt: skip


def number_handle(number: int) -> Line2D:
    """Return what a legend shows beside the name of the point with this number."""
    from matplotlib.lines import Line2D

    # A marker fills a square: one digit by its height, several by their width, 0.75 of a height each.
    size = FONT_SIZE * 0.65 * max(1.0, 0.75 * len(str(number)))
    return Line2D(
        [], [], linestyle="", marker=f"${number}$", markersize=size, markerfacecolor=INK,
        markeredgewidth=0,
    )  # fmt: skip
