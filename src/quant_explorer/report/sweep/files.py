"""The files of a sweep: its tables as CSV and JSON, and the plots."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quant_explorer.analysis.hardware.rows import HardwareRow, LayerRow
from quant_explorer.analysis.sweep.interaction import Interaction
from quant_explorer.analysis.sweep.rows import SweepRow
from quant_explorer.analysis.sweep.seeds import SeedRow
from quant_explorer.analysis.sweep.tables import ErrorRow, SweepTables
from quant_explorer.core.settings.plan import Reproducibility
from quant_explorer.report.render import write_files
from quant_explorer.report.sweep.csv import encode_csv
from quant_explorer.report.sweep.plots import draw_sweep


def write_sweep(tables: SweepTables, reproducibility: Reproducibility | None, folder: Path) -> None:
    """Write every output of a sweep to `folder`.

    `reproducibility` is of the measurement: None leaves the file of an earlier one as it is. There is no
    `pareto_frontier_energy.csv` where energy was not measured.
    Raises StorageError when a file cannot be written.
    """
    by_energy = tables.energy_frontier
    files = {
        "sweep_results.csv": encode_csv(SweepRow, tables.rows),
        "sweep_results.json": _json(tables.rows),
        "pareto_frontier_latency.csv": encode_csv(SweepRow, [row for row in tables.rows if row.on_frontier]),
        "layerwise_breakdown.csv": encode_csv(LayerRow, tables.layers),
        "precision_tradeoffs.csv": encode_csv(Interaction, tables.interactions),
        "hardware_summary.csv": encode_csv(HardwareRow, tables.hardware),
        "sweep_errors.csv": encode_csv(ErrorRow, tables.errors),
        "summary.json": _json(tables.summary),
        "summary_multi_seed.json": _json(tables.seeds),
        "summary_multi_seed.csv": encode_csv(SeedRow, tables.seeds),
        **({"reproducibility.json": _json(reproducibility)} if reproducibility else {}),
        **({"pareto_frontier_energy.csv": encode_csv(SweepRow, by_energy)} if by_energy else {}),
        **draw_sweep(tables.rows, tables.layers, tables.peaks),
    }
    write_files(folder, files)


def _json(content: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
