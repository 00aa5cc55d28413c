from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from quant_explorer.report.columns import pareto_table
from quant_explorer.report.terminal import terminal_tables
from tests.analysis.replayed import ORDINARY, ranked


def test_the_terminal_shows_the_table_of_the_report(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    content = pareto_table(results, "small_cnn")
    console = Console(file=io.StringIO(), width=220)
    with console.capture() as capture:
        console.print(*terminal_tables(results, "small_cnn", width=220))
    text = capture.get()
    for cell in (content.title, *content.headings, *(cell for row in content.rows for cell in row)):
        assert cell in text


def test_a_narrow_terminal_splits_the_table_and_loses_nothing(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    content = pareto_table(results, "small_cnn")
    tables = terminal_tables(results, "small_cnn", width=80)
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(*tables)
    text = capture.get()
    assert len(tables) > 1
    assert all(len(line) <= 80 for line in text.splitlines())
    for cell in (*content.headings, *(cell for row in content.rows for cell in row)):
        assert cell in text
    assert text.count(content.rows[0][0]) >= len(tables)
