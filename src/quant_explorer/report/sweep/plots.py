"""The plots of a sweep: accuracy against each cost, the roofline, and the layers, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence

from quant_explorer.analysis.hardware.rows import LayerRow
from quant_explorer.analysis.sweep.rows import SweepRow
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.report.sweep.cost_plot import Cost, CostAxis, draw_cost
from quant_explorer.report.sweep.figures import choose_look, styled
from quant_explorer.report.sweep.layer_plots import draw_layers
from quant_explorer.report.sweep.roofline_plot import draw_roofline


def draw_sweep(rows: Sequence[SweepRow], layers: Sequence[LayerRow], peaks: Peaks | None) -> dict[str, bytes]:
    """Return the content of every plot by file name; the same input, the same bytes.

    There is no energy plot without a figure of energy, measured or a proxy, and no roofline without peaks.
    """
    levels = [*(row.pruning for row in rows), *(layer.pruning for layer in layers)]
    look = choose_look(levels, (row.runtime for row in rows))
    files: dict[str, bytes] = {}
    with styled():
        for axis in (LATENCY, MEMORY, *_energy_axes(rows)):
            files |= draw_cost(axis, rows, look)
        files |= draw_roofline(rows, peaks, look)
        files |= draw_layers(layers, look)
    return files


def _latency(row: SweepRow) -> Cost | None:
    return _scaled(1e3, row.latency_p50_s, row.latency_low_s, row.latency_high_s)


def _memory(row: SweepRow) -> Cost | None:
    return _scaled(1e-6, row.peak_memory_bytes)


def _energy(row: SweepRow) -> Cost | None:
    return _scaled(1, row.energy_j, row.energy_low_j, row.energy_high_j)


def _energy_proxy(row: SweepRow) -> Cost | None:
    if row.energy_proxy_j is None or not row.latency_p50_s:
        return None
    return _scaled(
        row.energy_proxy_j / row.latency_p50_s, row.latency_p50_s, row.latency_low_s, row.latency_high_s
    )


def _scaled(
    factor: float, value: float | None, low: float | None = None, high: float | None = None
) -> Cost | None:
    if value is None:
        return None
    if low is None or high is None:
        low = high = value
    return value * factor, (low * factor, high * factor)


LATENCY = CostAxis("accuracy_vs_latency", "latency", "median latency at batch 1, ms", _latency)
MEMORY = CostAxis("accuracy_vs_memory", "peak memory", "peak memory above the runtime's own, MB", _memory)
ENERGY = CostAxis("accuracy_vs_energy", "energy", "energy of a call, J", _energy)
ENERGY_PROXY = CostAxis(
    "accuracy_vs_energy",
    "an energy proxy",
    "energy proxy (power x latency, J): the latency axis again",
    _energy_proxy,
)


def _energy_axes(rows: Sequence[SweepRow]) -> tuple[CostAxis, ...]:
    return tuple(axis for axis in (ENERGY, ENERGY_PROXY) if any(axis.cost_of(row) for row in rows))[:1]
