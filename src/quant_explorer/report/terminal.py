"""The Pareto table in the terminal: the columns of the Markdown report, drawn by Rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant_explorer.report.columns import Table, pareto_table

if TYPE_CHECKING:
    import rich.table

    from quant_explorer.analysis.results import Results

# What Rich draws around a cell: two blanks and a line.
_FRAME = 3


def terminal_tables(results: Results, model: str, width: int) -> tuple[rich.table.Table, ...]:
    """Return one model's Pareto table, in as many parts as a terminal of `width` columns needs.

    A cut figure is a wrong figure: columns that do not fit go to a further part, which repeats the first.
    """
    content = pareto_table(results, model)
    return tuple(
        _draw(content, part, title=content.title if number == 0 else "")
        for number, part in enumerate(_fit(content, width))
    )


def _fit(content: Table, width: int) -> list[list[int]]:
    needed = [
        max(len(text) for text in (heading, *(row[column] for row in content.rows))) + _FRAME
        for column, heading in enumerate(content.headings)
    ]
    parts: list[list[int]] = [[0]]
    for column in range(1, len(needed)):
        used = sum(needed[one] for one in parts[-1]) + 1
        if len(parts[-1]) > 1 and used + needed[column] > width:
            parts.append([0])
        parts[-1].append(column)
    return parts


def _draw(content: Table, columns: list[int], *, title: str) -> rich.table.Table:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=title or None)
    for column in columns:
        drawn.add_column(
            Text(content.headings[column]),
            justify="right" if content.numeric[column] else "left",
            overflow="fold",
        )
    for row in content.rows:
        # Text, so that no cell is read as markup.
        drawn.add_row(*(Text(row[column]) for column in columns))
    return drawn
