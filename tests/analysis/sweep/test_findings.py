from __future__ import annotations

import dataclasses
from pathlib import Path

from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.sweep.findings import examine_seed
from quant_explorer.core.measurement import Status
from quant_explorer.testing.replay import Scene, measurement, play
from tests.analysis.sweep.swept import GRID, PLAN, RUN


def test_a_variant_that_died_while_it_was_timed_has_no_figures(tmp_path: Path) -> None:
    """Its rounds and outputs until then are in the study, and it would be the best of all."""
    study = play(tmp_path / "study-0.jsonl", GRID)
    died = dataclasses.replace(measurement(GRID[3], Scene()), status=Status.DIED, reason="killed by signal 9")
    study.append(died)
    results = summarize(study, RUN, draws=200)
    found = examine_seed(0, study, results, PLAN)
    (row,) = [row for row in found.rows if row.config == "pruned50_int8"]
    assert (row.status, row.size_bytes, row.on_frontier) == ("died", 80_000, None)
    figures = (row.top1, row.diff_pp, row.latency_p50_s, row.speedup, row.peak_memory_bytes, row.cold_start_s)
    assert figures == (None,) * 6
    assert "pruned50_int8@eager" not in found.ranked
    (variant,) = [variant for variant in results.variants if variant.config == "pruned50_int8"]
    assert set(variant.latency["1"].reasons.values()) == {"it died: killed by signal 9"}
