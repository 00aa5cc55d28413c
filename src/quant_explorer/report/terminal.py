"""The Pareto table in the terminal: the columns of the Markdown report, drawn by Rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant_explorer.report.columns import pareto_table

if TYPE_CHECKING:
    import rich.table

    from quant_explorer.report.results import Results


def terminal_table(results: Results, model: str) -> rich.table.Table:
    """Return one model's Pareto table for `rich.console.Console.print`."""
    from rich.table import Table
    from rich.text import Text

    content = pareto_table(results, model)
    # A cut figure is a wrong figure: cells fold instead.
    drawn = Table(title=Text(content.title))
    for heading, numeric in zip(content.headings, content.numeric, strict=True):
        drawn.add_column(Text(heading), justify="right" if numeric else "left", overflow="fold")
    for row in content.rows:
        # Text, so that no cell is read as markup.
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn
