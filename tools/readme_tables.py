"""Puts tables of committed results into a document: `python tools/readme_tables.py DOCUMENT RESULTS...`.

Each table stands between two comments that name the folder of its results, so that a test can tell when it is
not current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quant_explorer.analysis.results import Results
from quant_explorer.core.errors import StudyError
from quant_explorer.core.units import format_count
from quant_explorer.report.answer import describe_answer
from quant_explorer.report.columns import pareto_table
from quant_explorer.report.markdown import describe_groups, escape, markdown_table
from quant_explorer.report.render import load_results


def marks(folder: str) -> tuple[str, str]:
    """Return the lines between which the table of the results in `folder` stands."""
    return f"<!-- {folder}: begin (written by `make readme`) -->", f"<!-- {folder}: end -->"


def insert_table(document: str, folder: str, results: Results) -> str:
    """Return `document` with the answer and the choices of `results` between the marks of `folder`.

    Raises StudyError when the document has no such marks.
    """
    first, last = marks(folder)
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise StudyError(f"the document lacks the line {first!r} or {last!r}")
    tables = "\n\n".join(_table(results, model) for model in results.models)
    return f"{before}{begin}\n{_setting(results)}\n\n{tables}\n{end}{after}"


def _table(results: Results, model: str) -> str:
    """Return the answer, the rows of the choices there are, and what the representatives stand for."""
    table = pareto_table(results, model, everything=False)
    rest = len(pareto_table(results, model).rows) - len(table.rows)
    more = [f"More measured: {rest}, none of them a choice of its own."] if rest else []
    groups = [f"- {sentence}." for sentence in describe_groups(results, model)]
    parts = (escape(describe_answer(results, model)), markdown_table(table).strip(), "\n".join(groups), *more)
    return "\n\n".join(part for part in parts if part)


def _setting(results: Results) -> str:
    environment, run = results.environment, results.run.settings
    sets = f" ({', '.join(environment.instruction_sets)})" if environment.instruction_sets else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items()))
    return (
        f"Data `{run.data}`, {run.epochs} epochs, seed {run.seed}; {environment.cpu}{sets}, "
        f"{format_count(environment.threads, 'pinned core')}; Python {environment.python}, {versions}."
    )


def main() -> None:
    """Rewrite the document named first from the results named after it."""
    document, *files = map(Path, sys.argv[1:])
    text = document.read_text()
    for file in files:
        text = insert_table(text, file.parent.as_posix(), load_results(file))
    document.write_text(text)


if __name__ == "__main__":
    main()
