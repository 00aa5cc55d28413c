from __future__ import annotations

import dataclasses
from pathlib import Path

from quant_explorer.analysis.sweep.tables import tabulate_sweep
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.report.sweep.text import describe_choices, describe_sweep
from tests.analysis.sweep.swept import GRID, PLAN, swept


def test_when_everything_failed_the_sentences_say_so(tmp_path: Path) -> None:
    broken = [dataclasses.replace(variant, status=Status.DIED, reason="killed") for variant in GRID]
    found = swept(tmp_path, broken)
    tables = tabulate_sweep([found], PLAN, draws=50)
    assert "0 of 5 variants measured, 0 not possible, 5 failed" in next(describe_sweep(tables))
    (choice,) = describe_choices(tables.summary, found.results)
    assert "no variant was measured" in choice


def test_the_pick_comes_with_its_rule_and_how_it_serves(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, budgets=(Budgets(accuracy_drop_pp=1.5, use_ci=False),))
    found = swept(tmp_path, plan=plan)
    tables = tabulate_sweep([found], plan, draws=50)
    (choice,) = describe_choices(tables.summary, found.results)
    assert "Ship int8@eager (the fastest of those within all budgets)" in choice
    assert "on 1 core" in " ".join(describe_sweep(tables))
