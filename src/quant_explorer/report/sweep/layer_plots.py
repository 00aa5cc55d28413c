"""Where the work of a model is: multiply-accumulates and activations of each layer, by pruning level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quant_explorer.report.points import INK
from quant_explorer.report.sweep.figures import (
    Look,
    draw_legend,
    encode,
    name_level,
    new_figure,
    say_nothing_is_drawn,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

    from quant_explorer.analysis.hardware.rows import LayerRow

# Inches: of a bar, between layers, and the least in which a layer's name is legible.
BAR, GAP, LEAST_ROW = 0.05, 0.08, 0.19
AXIS_ABOVE_TOO = 25
OUTSIDE = "(outside of layers)"
MACS = {1e9: "10⁹ multiply-accumulates", 1e6: "10⁶ multiply-accumulates", 1e3: "10³ multiply-accumulates"}
BYTES = {1e9: "GB", 1e6: "MB", 1e3: "kB"}


def draw_layers(layers: Sequence[LayerRow], look: Look) -> dict[str, bytes]:
    """Return `layer_macs` and `layer_activations`, activations in FP32 or else in the first precision."""
    precisions = list(dict.fromkeys(layer.precision for layer in layers))
    precision = "fp32" if "fp32" in precisions else next(iter(precisions), "fp32")
    shown = [layer for layer in layers if layer.precision == precision]
    macs = {(layer.pruning, layer.layer): layer.macs for layer in shown}
    moved = {(layer.pruning, layer.layer): layer.activation_bytes for layer in shown}
    read = f"Activations that each layer reads and writes, {precision}"
    return {
        **_draw("layer_macs", "Work of each layer", "{} for one image", MACS, macs, look),
        **_draw("layer_activations", read, "activations of one image, {}", BYTES, moved, look),
    }


def _draw(
    name: str,
    title: str,
    axis: str,
    units: Mapping[float, str],
    values: Mapping[tuple[float, str], int],
    look: Look,
) -> dict[str, bytes]:
    """Draw values by (pruning level, layer); layers that have none are left out."""
    layers = list(dict.fromkeys(layer for (_, layer), value in values.items() if value))
    if not layers:
        return say_nothing_is_drawn(name, title, "Nothing to draw: the layers of no model are known.")
    levels = sorted({level for level, _ in values})
    most = max(values.values())
    scale = next((scale for scale in units if most >= scale), min(units))
    row = max(BAR * len(levels) + GAP, LEAST_ROW)
    figure, axes = new_figure(9.0, 1.2 + max(row * len(layers), 1.3))
    axes.set_title(f"{title}\n{len(layers)} layers in the order they are called", fontsize=10)
    axes.set_xlabel(axis.format(units[scale]))
    _draw_bars(axes, layers, levels, {key: value / scale for key, value in values.items()}, look, GAP / row)
    bars = [(_patch(look.colours[level]), name_level(level)) for level in levels]
    draw_legend(figure, [("pruning level", bars)])
    return encode(name, figure)


def _draw_bars(
    axes: Axes,
    layers: Sequence[str],
    levels: Sequence[float],
    values: Mapping[tuple[float, str], float],
    look: Look,
    gap: float,
) -> None:
    thickness = (1 - gap) / len(levels)
    for number, level in enumerate(levels):
        offset = (number - (len(levels) - 1) / 2) * thickness
        places = [place + offset for place in range(len(layers))]
        lengths = [values.get((level, layer), 0.0) for layer in layers]
        axes.barh(
            places, lengths, thickness, color=look.colours[level], edgecolor=INK, linewidth=0.25, zorder=2
        )
    for place in range(1, len(layers), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#F3F3F3", linewidth=0, zorder=0)
    axes.set_yticks(range(len(layers)), [layer or OUTSIDE for layer in layers], fontsize=8)
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", color="#E0E0E0", linewidth=0.6, zorder=1)
    if len(layers) > AXIS_ABOVE_TOO:
        axes.tick_params(axis="x", top=True, labeltop=True)


def _patch(colour: str) -> Patch:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor=INK, linewidth=0.25)
