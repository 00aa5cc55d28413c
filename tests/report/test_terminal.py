from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from quant_explorer.report.columns import pareto_table
from quant_explorer.report.terminal import DISPENSABLE, terminal_table
from tests.analysis.replayed import ORDINARY, ranked

WIDE = 240


def drawn(folder: Path, width: int, *, everything: bool) -> tuple[str, tuple[str, ...], int]:
    table = terminal_table(ranked(folder, ORDINARY), "small_cnn", width, everything=everything)
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(table.drawn)
    return capture.get(), table.left_out, table.hidden_rows


def test_the_terminal_shows_the_table_of_the_report(tmp_path: Path) -> None:
    content = pareto_table(ranked(tmp_path / "report", ORDINARY), "small_cnn")
    text, left_out, hidden_rows = drawn(tmp_path, WIDE, everything=True)
    for cell in (content.title, *content.headings, *(cell for row in content.rows for cell in row)):
        assert cell in text
    assert (left_out, hidden_rows) == ((), 0)


@pytest.mark.parametrize("width", [60, 100, 140])
def test_a_narrow_terminal_loses_whole_columns_in_a_fixed_order(tmp_path: Path, width: int) -> None:
    content = pareto_table(ranked(tmp_path / "report", ORDINARY), "small_cnn")
    text, left_out, _ = drawn(tmp_path, width, everything=True)
    assert all(len(line) <= width for line in text.splitlines())
    going = [
        heading
        for dispensable in DISPENSABLE
        for heading in content.headings
        if heading.startswith(dispensable)
    ]
    assert left_out
    assert list(left_out) == going[: len(left_out)]
    for column, heading in enumerate(content.headings):
        if heading not in left_out:
            assert all(row[column] in text for row in content.rows)


def test_only_the_choices_are_shown_unless_everything_is_asked_for(tmp_path: Path) -> None:
    text, _, hidden_rows = drawn(tmp_path, WIDE, everything=False)
    # It is beaten by the baseline on every axis.
    assert "dynamic_int8" not in text
    assert hidden_rows == 1
    assert "static_int8_per_tensor" in text
