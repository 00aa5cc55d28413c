"""The cells of the zoo as Markdown, between the marks of docs/models.md."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from quant_explorer.core.errors import StudyError
from quant_explorer.report.columns import Table
from quant_explorer.report.markdown import markdown_table
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.zoo import Specimen
from quant_explorer.testing.zoo.cells import CONFIGS, SpecimenResult, Verdict

FP32, INT8 = "fp32", "static_int8_per_channel"
_SHOWN = 8


def insert_tables(
    document: str, name: str, specimens: Mapping[str, Specimen], cells: Sequence[SpecimenResult]
) -> str:
    """Return `document` with the tables of `specimens` between the marks of `name`.

    Raises StudyError when the document has no such marks.
    """
    first, last = f"<!-- {name}: begin (written by `make {name}`) -->", f"<!-- {name}: end -->"
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise StudyError(f"the document lacks the line {first!r} or {last!r}")
    ours = [cell for cell in cells if cell.specimen in specimens]
    tables = "\n\n".join([_counts(ours), _matrix(specimens, ours), _exceptions(ours)])
    return f"{before}{begin}\n{tables}\n{end}{after}"


def _counts(cells: Sequence[SpecimenResult]) -> str:
    counted = Counter((cell.runtime, cell.config, cell.verdict) for cell in cells)
    configs = [config for config in CONFIGS if any(cell.config == config for cell in cells)]

    def count(runtime: str, config: str) -> str:
        found = [(verdict, counted[runtime, config, verdict]) for verdict in Verdict]
        return ", ".join(f"{number} {verdict}" for verdict, number in found if number) or "-"

    rows = [(runtime, *(count(runtime, config) for config in configs)) for runtime in RUNTIMES]
    return _table(("runtime", *configs), rows)


def _matrix(specimens: Mapping[str, Specimen], cells: Sequence[SpecimenResult]) -> str:
    by_key = {cell.key: cell for cell in cells}
    rows = []
    for name, specimen in specimens.items():
        simulated = [
            cell.simulated_db
            for cell in cells
            if (cell.specimen, cell.config) == (name, INT8) and cell.simulated_db is not None
        ]
        rows.append(
            (
                name,
                specimen.pattern,
                f"{simulated[0]:.1f}" if simulated else "-",
                *(
                    _both(by_key.get((name, runtime, FP32)), by_key.get((name, runtime, INT8)))
                    for runtime in RUNTIMES
                ),
            )
        )
    return _table(("model", "pattern", "simulated", *RUNTIMES), rows)


def _both(fp32: SpecimenResult | None, int8: SpecimenResult | None) -> str:
    """Return the decibels of INT8, and whatever is not right in a word."""
    sentences = [] if fp32 is None or fp32.verdict == Verdict.RIGHT else [f"FP32 {fp32.verdict}"]
    if int8 is not None:
        figure = "exact" if int8.db is None else f"{int8.db:.1f}"
        sentences.append(
            {Verdict.RIGHT: figure, Verdict.WRONG: f"{figure} wrong"}.get(int8.verdict, int8.verdict)
        )
    return ", ".join(sentences) or "-"


def _exceptions(cells: Iterable[SpecimenResult]) -> str:
    """List the reasons of all that is not right, each with where it occurs."""
    found: dict[tuple[Verdict, str], dict[tuple[str, str], list[str]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for cell in cells:
        if cell.verdict != Verdict.RIGHT:
            reason = " ".join(cell.reason.split())
            found[cell.verdict, reason][cell.runtime, cell.config].append(cell.specimen)
    rows = [
        (verdict, reason, f"{runtime} {config}", _some(names))
        for (verdict, reason), places in sorted(found.items())
        for (runtime, config), names in places.items()
    ]
    return _table(("came out", "reason", "where", "models"), rows) if rows else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return markdown_table(Table("", headings, tuple(False for _ in headings), tuple(rows)))
