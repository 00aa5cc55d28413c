"""Figures of a sweep as files, and what their plots share: style, colours, markers, legends."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, cast

from quant_explorer.report.plot import DPI, MARKERS, STYLE
from quant_explorer.report.points import INK, number_handle

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Text stays text, which can be searched, and ids depend on the content alone.
SVG = {"svg.hashsalt": "quant-explorer", "svg.fonttype": "none"}
# Viridis gets lighter evenly, so its order survives greyscale; its light end would be lost on white paper.
LEVELS, LIGHTEST = "viridis", 0.8
NOT_OF_THE_GRID = "#909090"

Entry = tuple["Artist | tuple[Artist, ...]", str]
Section = tuple[str, Sequence[Entry]]


@dataclass(frozen=True)
class Look:
    """One colour for each pruning level and one marker for each runtime, the same in all plots of a sweep."""

    colours: Mapping[float | None, str]
    shapes: Mapping[str, str]


def choose_look(levels: Iterable[float | None], runtimes: Iterable[str]) -> Look:
    """Give colours in the order of the levels (dark is unpruned) and markers in the order runtimes come."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    found = set(levels)
    known = sorted(level for level in found if level is not None)
    step = LIGHTEST / max(len(known) - 1, 1)
    colours: dict[float | None, str] = {
        level: to_hex(colormaps[LEVELS](number * step)) for number, level in enumerate(known)
    }
    if None in found:
        colours[None] = NOT_OF_THE_GRID
    return Look(colours, dict(zip(dict.fromkeys(runtimes), cycle(MARKERS), strict=False)))


def name_level(level: float | None) -> str:
    """Name a pruning level as legends do."""
    if level is None:
        return "not of the grid"
    return f"{100 * level:g} %" if level else "unpruned"


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the plots whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", STYLE, SVG]):
        yield


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of a size in inches and its only axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def encode(name: str, figure: Figure) -> dict[str, bytes]:
    """Return a figure as `name.png` and `name.svg`; the same figure, the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {f"{name}.png": png.getvalue(), f"{name}.svg": svg.getvalue()}


def say_nothing_is_drawn(name: str, title: str, reason: str) -> dict[str, bytes]:
    """Return a figure that holds a sentence instead of data."""
    figure, axes = new_figure(7.2, 2.4)
    axes.set_title(title)
    axes.set_axis_off()
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes)
    return encode(name, figure)


def marker(shape: str, area: float, face: str, edge: str = INK, width: float = 0.9) -> Line2D:
    """Return a marker for a legend, `area` in points squared as in the plot."""
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="", marker=shape, markersize=area**0.5, markerfacecolor=face,
        markeredgecolor=edge, markeredgewidth=width,
    )  # fmt: skip


def draw_legend(figure: Figure, sections: Iterable[Section]) -> None:
    """Write a legend right of the axes, its sections under headings; those without entries are left out."""
    from matplotlib.lines import Line2D

    handles: list[Artist | tuple[Artist, ...]] = []
    labels: list[str] = []
    headings: list[int] = []
    for heading, entries in sections:
        if not entries:
            continue
        headings.append(len(labels))
        handles += [Line2D([], [], linestyle=""), *(handle for handle, _ in entries)]
        labels += [heading, *(label for _, label in entries)]
    # The stubs know no tuples, which are drawn one above the other.
    legend = figure.legend(
        cast("list[Artist]", handles), labels, loc="outside right upper", frameon=False, fontsize=8.5,
        labelspacing=0.75, handletextpad=0.8, borderaxespad=1.0,
    )  # fmt: skip
    for number in headings:
        legend.get_texts()[number].set_fontweight("bold")


def draw_key(figure: Figure, names: Sequence[str]) -> None:
    """Name the points numbered 1, 2, ... below the axes."""
    if names:
        handles = [number_handle(number) for number in range(1, len(names) + 1)]
        figure.legend(handles, names, loc="outside lower left", ncols=3, frameon=False, fontsize=8)
