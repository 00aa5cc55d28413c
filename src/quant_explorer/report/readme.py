"""Puts the table of committed results into a document: `python -m quant_explorer.report.readme`.

The table stands between two comments in the document, so that a test can tell when it is not current.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from quant_explorer.core.errors import StudyError
from quant_explorer.report.columns import pareto_table
from quant_explorer.report.markdown import markdown_table
from quant_explorer.report.render import load_results
from quant_explorer.report.results import Results

BEGIN = "<!-- results: begin (written by `make readme`) -->"
END = "<!-- results: end -->"


def insert_table(document: str, results: Results) -> str:
    """Return `document` with the baseline and the frontier of `results` between its two marks.

    Raises StudyError when the document has no such marks.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise StudyError(f"the document lacks the line {BEGIN!r} or {END!r}")
    tables = "\n\n".join(_table(results, model) for model in results.models)
    return f"{before}{begin}\n{_setting(results)}\n\n{tables}\n{end}{after}"


def _table(results: Results, model: str) -> str:
    """Return the rows that come first in reading order: the baseline and what nothing else beats."""
    table = pareto_table(results, model)
    shown = 1 + sum(bool(one.frontier.on_frontier) for one in results.of_model(model)[1:])
    rest = len(table.rows) - shown
    told = (
        f"\n\n{rest} more were measured; something beats each on size, latency and accuracy." if rest else ""
    )
    return markdown_table(replace(table, rows=table.rows[:shown])).strip() + told


def _setting(results: Results) -> str:
    environment, run = results.environment, results.run
    sets = ", ".join(environment.instruction_sets)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))
    return (
        f"Data `{run.data}`, {run.epochs} epochs, seed {run.seed}; {environment.cpu} ({sets}), "
        f"{run.threads} pinned core(s); Python {environment.python}, {versions}."
    )


def main() -> None:
    """Rewrite the document named second from the results named first."""
    results, document = Path(sys.argv[1]), Path(sys.argv[2])
    document.write_text(insert_table(document.read_text(), load_results(results)))


if __name__ == "__main__":
    main()
