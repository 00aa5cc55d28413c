"""The roofline: what the measured variants reach of what the machine can do (`core/cost/roofline.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quant_explorer.core.cost.roofline import BANDWIDTH, Peaks, ridge_macs_per_byte
from quant_explorer.report.sweep.figures import Look, draw_legend, encode, marker, name_level, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from quant_explorer.analysis.sweep.rows import SweepRow

NAME = "roofline"
Style = tuple[str, Literal["-", "--", "-.", ":", "none"]]
# Okabe and Ito's colours, lighter the fewer bits; the lines differ by their dashes too.
ROOFS: dict[str, Style] = {
    "fp32": ("#000000", "-"),
    "bf16": ("#0072B2", "-."),
    "fp16": ("#CC79A7", ":"),
    "int8": ("#E69F00", "--"),
}
OTHER: Style = ("#909090", "-")
MEMORY, BROAD = "#A0A0A0", 3.5
LARGEST, SMALLEST = 110.0, 28.0


@dataclass(frozen=True)
class _Placed:
    row: SweepRow
    macs_per_byte: float
    gmacs_per_s: float


def draw_roofline(rows: Sequence[SweepRow], peaks: Peaks | None, look: Look) -> dict[str, bytes]:
    """Return the plot, or no file at all where no precision has a peak."""
    if peaks is None or not peaks.gmacs_per_s:
        return {}
    placed = [
        _Placed(row, row.macs_per_byte, row.gmacs_per_s)
        for row in rows
        if row.macs_per_byte is not None and row.gmacs_per_s is not None
    ]
    areas = _areas([point.row.pruning for point in placed])
    figure, axes = new_figure(9.4, 6.2)
    axes.set_title(
        f"Roofline of the measured machine, {peaks.threads} thread{'s' if peaks.threads > 1 else ''}\n"
        + (f"{len(placed)} measured variants" if placed else "no measured variant can be placed under it")
    )
    axes.set_xlabel("arithmetic intensity, multiply-accumulates per byte moved (a lower bound of the bytes)")
    axes.set_ylabel("10⁹ multiply-accumulates per second (GMAC/s)")
    _set_limits(axes, placed, peaks)
    _draw_roofs(axes, peaks)
    for point in sorted(placed, key=lambda point: -areas[point.row.pruning]):
        colour = _roof(point.row.precision)[0]
        axes.scatter(
            point.macs_per_byte, point.gmacs_per_s, s=areas[point.row.pruning],
            marker=look.shapes[point.row.runtime], facecolor=(colour, 0.3), edgecolor=colour,
            linewidth=1.1, zorder=3,
        )  # fmt: skip
    shown = {point.row.runtime for point in placed}
    precisions = dict.fromkeys(point.row.precision for point in placed)
    draw_legend(
        figure,
        [
            ("roofs", _roof_entries(peaks)),
            (
                "precision asked for",
                [(marker("o", 60, _roof(precision)[0]), precision or "none") for precision in precisions],
            ),
            (
                "pruning level",
                [(marker("o", area, "#BBBBBB"), name_level(level)) for level, area in areas.items()],
            ),
            (
                "runtime",
                [
                    (marker(look.shapes[shape], 60, "#FFFFFF"), shape)
                    for shape in look.shapes
                    if shape in shown
                ],
            ),
        ],
    )
    return encode(NAME, figure)


def _roof(precision: str | None) -> Style:
    return ROOFS.get(precision or "", OTHER)


def _areas(levels: Sequence[float | None]) -> dict[float | None, float]:
    """Return smaller markers for what was pruned more."""
    found = sorted({level for level in levels if level is not None})
    step = (LARGEST - SMALLEST) / max(len(found) - 1, 1)
    areas: dict[float | None, float] = {level: LARGEST - number * step for number, level in enumerate(found)}
    if None in levels:
        areas[None] = LARGEST
    return areas


def _set_limits(axes: Axes, placed: Sequence[_Placed], peaks: Peaks) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    highest, lowest = max(peaks.gmacs_per_s.values()), min(peaks.gmacs_per_s.values())
    ridges = [ridge_macs_per_byte(peak, peaks.gb_per_s) for peak in (lowest, highest)]
    intensities = [*ridges, *(point.macs_per_byte for point in placed)]
    speeds = [lowest, highest, *(point.gmacs_per_s for point in placed)]
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlim(min(intensities) / 3, max(intensities) * 3)
    axes.set_ylim(min(speeds) / 2.5, max(speeds) * 2.5)
    axes.grid(visible=True, which="major", color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_roofs(axes: Axes, peaks: Peaks) -> None:
    left, right = axes.get_xlim()
    ridge = ridge_macs_per_byte(max(peaks.gmacs_per_s.values()), peaks.gb_per_s)
    slope = [left * peaks.gb_per_s, ridge * peaks.gb_per_s]
    axes.plot([left, ridge], slope, color=MEMORY, linewidth=BROAD, zorder=1.9)
    for precision, peak in peaks.gmacs_per_s.items():
        colour, dashes = _roof(precision)
        start = ridge_macs_per_byte(peak, peaks.gb_per_s)
        axes.plot([start, right], [peak, peak], color=colour, linestyle=dashes, linewidth=1.6, zorder=2)


def _roof_entries(peaks: Peaks) -> list[tuple[Line2D, str]]:
    from matplotlib.lines import Line2D

    def line(style: Style, width: float = 1.6) -> Line2D:
        return Line2D([], [], color=style[0], linestyle=style[1], linewidth=width)

    def given(name: str) -> str:
        return " (given)" if name in peaks.overrides else ""

    return [
        *(
            (line(_roof(name)), f"{name}: {peak:,.4g} GMAC/s{given(name)}")
            for name, peak in sorted(peaks.gmacs_per_s.items(), key=lambda item: -item[1])
        ),
        (line((MEMORY, "-"), BROAD), f"memory: {peaks.gb_per_s:,.3g} GB/s{given(BANDWIDTH)}"),
        *((line((MEMORY, "none")), f"{name}: no peak") for name in peaks.reasons),
    ]
