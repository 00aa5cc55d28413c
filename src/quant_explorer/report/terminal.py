"""The Pareto table in the terminal: the columns of the Markdown report, as far as there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_explorer.core.units import show_controls
from quant_explorer.report.columns import Table, pareto_table

if TYPE_CHECKING:
    import rich.table

    from quant_explorer.analysis.results import Results

# What Rich draws around a cell: two blanks and a line.
_FRAME = 3
# The beginnings of the headings that go where there is no room, the first of them first.
DISPENSABLE = (
    "images",
    "sqnr_db",
    "mem_peak_mb",
    "size_kb",
    "pareto_optimal",
    "p50_lat_ms",
    "top1_acc",
    "speedup_same_runtime",
    "margin",
    "size_ratio",
    "acc_diff_pp",
    "top1_agreement",
    "latency_speedup",
)


@dataclass(frozen=True)
class TerminalTable:
    """A table as it is drawn, and the headings of the columns and the number of rows that it leaves out."""

    drawn: rich.table.Table
    left_out: tuple[str, ...]
    hidden_rows: int


def terminal_table(results: Results, model: str, width: int, *, everything: bool) -> TerminalTable:
    """Return one model's Pareto table for a terminal of `width` columns.

    `everything` is that of `columns.pareto_table`. A cut figure is a wrong figure: where there is no room,
    whole columns go, in the order of DISPENSABLE.
    """
    content = pareto_table(results, model, everything=everything)
    left_out = _choose(content, width)
    kept = tuple(heading for heading in content.headings if heading not in left_out)
    hidden = len(pareto_table(results, model).rows) - len(content.rows)
    return TerminalTable(draw_table(content, kept), left_out, hidden)


def _choose(content: Table, width: int) -> tuple[str, ...]:
    needed = {
        heading: max(len(text) for text in (heading, *(row[column] for row in content.rows))) + _FRAME
        for column, heading in enumerate(content.headings)
    }
    left_out: list[str] = []
    for beginning in DISPENSABLE:
        if sum(needed.values()) + 1 <= width:
            break
        going = [heading for heading in needed if heading.startswith(beginning)]
        left_out += going
        for heading in going:
            del needed[heading]
    return tuple(left_out)


def draw_table(content: Table, headings: Sequence[str] | None = None) -> rich.table.Table:
    """Draw the columns with these headings, all of them by default."""
    from rich.table import Table as RichTable
    from rich.text import Text

    columns = [
        number for number, heading in enumerate(content.headings) if headings is None or heading in headings
    ]
    drawn = RichTable(title=content.title)
    for column in columns:
        drawn.add_column(
            Text(content.headings[column]),
            justify="right" if content.numeric[column] else "left",
            overflow="fold",
        )
    for row in content.rows:
        # Text, so that no cell is read as markup.
        drawn.add_row(*(Text(show_controls(row[column])) for column in columns))
    return drawn
