"""The README's tables are those of the committed results."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.core.errors import StudyError
from quant_explorer.core.recipe import BASELINE
from quant_explorer.report.render import load_results
from readme_tables import insert_table, marks

ROOT = Path(__file__).parents[2]
SHOWN = ("results/cifar10-jpeg", "results/cifar10-sweep/seed-0")
RESULTS = ROOT / SHOWN[0] / "full_results.json"


@pytest.mark.parametrize("folder", SHOWN)
def test_the_readme_is_current(folder: str) -> None:
    document = (ROOT / "README.md").read_text()
    assert insert_table(document, folder, load_results(ROOT / folder / "full_results.json")) == document


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    results = load_results(RESULTS)
    begin, end = marks("here")
    written = insert_table(f"above\n{begin}\nold figures\n{end}\nbelow\n", "here", results)
    assert written.startswith(f"above\n{begin}\n")
    assert written.endswith(f"\n{end}\nbelow\n")
    assert "old figures" not in written
    shown = {variant.name for variant in results.variants if f"| {variant.name} |" in written}
    choices = {variant.name for variant in results.variants if variant.name == variant.frontier.group}
    assert shown == {BASELINE, *choices, *results.answers[0].names[:1]}
    rest = len([variant for variant in results.variants if variant.status == "ok"]) - len(shown)
    assert f"More measured: {rest}, " in written
    assert "Ship " in written


def test_a_document_without_marks_is_refused() -> None:
    begin, end = marks("elsewhere")
    with pytest.raises(StudyError, match="lacks the line '<!-- here: begin"):
        insert_table(f"{begin}\n{end}\n", "here", load_results(RESULTS))
