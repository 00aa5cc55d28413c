"""The README's table is that of the committed results."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.core.errors import StudyError
from quant_explorer.report.readme import BEGIN, END, insert_table
from quant_explorer.report.render import load_results

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "cifar10-jpeg" / "full_results.json"


def test_the_readme_is_current() -> None:
    document = (ROOT / "README.md").read_text()
    assert insert_table(document, load_results(RESULTS)) == document


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    results = load_results(RESULTS)
    written = insert_table(f"above\n{BEGIN}\nold figures\n{END}\nbelow\n", results)
    assert written.startswith(f"above\n{BEGIN}\n")
    assert written.endswith(f"\n{END}\nbelow\n")
    assert "old figures" not in written
    shown = {one.name for one in results.variants if f"| {one.name} |" in written}
    best = {one.name for one in results.variants if one.frontier.on_frontier}
    assert shown == {results.variants[0].name, *best}
    assert f"{len([one for one in results.variants if one.status == 'ok']) - len(shown)} more" in written


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(StudyError, match="lacks the line"):
        insert_table("no marks", load_results(RESULTS))
