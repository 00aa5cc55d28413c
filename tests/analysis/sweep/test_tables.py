from __future__ import annotations

import dataclasses
from pathlib import Path

from quant_explorer.analysis.sweep.tables import ErrorRow, tabulate_sweep
from quant_explorer.core.measurement import Status
from tests.analysis.sweep.swept import GRID, PLAN, swept


def test_energy_has_a_frontier_of_its_own_only_where_it_was_measured(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, power_watts=15.0)
    found = swept(tmp_path, plan=plan)
    assert tabulate_sweep([found], plan, draws=50).energy_frontier == ()
    rows = [dataclasses.replace(row, energy_j=1e-3 * number) for number, row in enumerate(found.rows, 1)]
    measured = dataclasses.replace(found, rows=tuple(rows))
    best = {row.config for row in tabulate_sweep([measured], PLAN, draws=50).energy_frontier}
    # With this energy the baseline needs least.
    assert "fp32_baseline" in best
    assert "pruned50_fp32" not in best


def test_failures_are_listed_with_their_reasons(tmp_path: Path) -> None:
    broken = dataclasses.replace(GRID[1], status=Status.UNSUPPORTED, reason="no such kernel, on this CPU")
    tables = tabulate_sweep([swept(tmp_path, [GRID[0], broken, *GRID[2:]])], PLAN, draws=50)
    expected = ErrorRow(0, "int8", "eager", "unsupported", "no such kernel, on this CPU")
    assert tables.errors == (expected,)


def test_the_hardware_has_a_row_a_precision_and_a_reason_for_what_is_missing(tmp_path: Path) -> None:
    rows = {row.precision: row for row in tabulate_sweep([swept(tmp_path)], PLAN, draws=50).hardware}
    assert rows["fp32"].peak_gmacs_per_s == 100.0
    assert (rows["fp16"].peak_gmacs_per_s, rows["fp16"].reason) == (None, "no kernel")
