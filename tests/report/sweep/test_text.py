from __future__ import annotations

import dataclasses
from pathlib import Path

from quant_explorer.analysis.sweep.tables import tabulate_sweep
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.report.sweep.text import describe_budgets, describe_sweep
from tests.analysis.sweep.swept import GRID, PLAN, swept


def test_when_everything_failed_the_sentences_say_so(tmp_path: Path) -> None:
    broken = [dataclasses.replace(one, status=Status.DIED, reason="killed") for one in GRID]
    sentences = list(describe_sweep(tabulate_sweep([swept(tmp_path, broken)], PLAN, draws=50)))
    assert "0 of 5 variants measured, 0 not possible, 5 failed" in sentences[0]
    assert "nothing was measured in every seed" in sentences[1]


def test_the_pick_comes_with_its_rule_and_how_it_serves(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, budgets=(Budgets(accuracy_drop_pp=1.5),))
    text = " ".join(describe_sweep(tabulate_sweep([swept(tmp_path, plan=plan)], plan, draws=50)))
    assert "Ship int8@eager (the fastest of those within all budgets)" in text
    assert "on 1 core" in text


def test_budgets_are_stated_in_words() -> None:
    assert describe_budgets(Budgets()) == "no budget"
    assert describe_budgets(Budgets(1.5e6, 4e6, 5e-4, 2.0, use_ci=True)) == (
        "files and peak memory each at most 1.5 MB, peak memory at most 4 MB, latency at most 0.5 ms, "
        "accuracy drop at most 2 pp (by the bad end of each interval)"
    )
