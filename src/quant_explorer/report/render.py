"""Results -> files: JSON, Markdown and the plot of a run, each replaced atomically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from quant_explorer.analysis.migration import from_schema_1
from quant_explorer.analysis.results import SCHEMA_VERSION, Results
from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.errors import StorageError, StudyError, explain
from quant_explorer.core.settings.declaration import decode_path
from quant_explorer.report.markdown import render_multi_pareto, render_pareto
from quant_explorer.report.page.content import Sheet
from quant_explorer.report.page.render import render_page
from quant_explorer.report.plot import draw_pareto

PAGE = "index.html"


class _Header(msgspec.Struct):
    schema_version: int


def write_report(results: Results, folder: Path, *, multi: bool) -> None:
    """Write the report to `folder`.

    Files: `full_results.json`, `pareto.md`, `pareto.png`, or with `multi` the same of several models as
    `multi_results.json`, `multi_pareto.md`, `multi_pareto.png`. Raises StorageError when a file cannot be
    written.
    """
    markdown = render_multi_pareto(results) if multi else render_pareto(results)
    files = {
        "multi_results.json" if multi else "full_results.json": encode_results(results),
        "multi_pareto.md" if multi else "pareto.md": markdown.encode(),
        "multi_pareto.png" if multi else "pareto.png": draw_pareto(results),
    }
    write_files(folder, files)


def write_page(results: Results, sheets: Sequence[Sheet], folder: Path) -> Path:
    """Write `index.html` to `folder`, with a tab for each sheet, and return where it is.

    `results` are those of the run, or of a sweep's first seed. Raises StorageError when it cannot be written.
    """
    write_files(folder, {PAGE: render_page(results, sheets)})
    return folder / PAGE


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write each content under its name in `folder`. Raises StorageError naming what cannot be written."""
    for name, content in files.items():
        try:
            write_atomically(folder / name, content)
        except OSError as error:
            raise StorageError(
                f"{folder / name}: cannot be written ({error.strerror or explain(error)})"
            ) from error


def encode_results(results: Results) -> bytes:
    """Return the results as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(results, enc_hook=str), indent=2) + b"\n"


def load_results(path: Path) -> Results:
    """Read `full_results.json` or `multi_results.json`.

    A document of schema 1 is read too (`analysis/migration.py`). Raises StudyError naming the file when it is
    missing, is not JSON, lacks a field, or is of another schema version.
    """
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Header).schema_version
    except (OSError, msgspec.MsgspecError) as error:
        raise StudyError(f"{path}: not a readable results file ({explain(error)})") from error
    if version not in (1, SCHEMA_VERSION):
        raise StudyError(f"{path}: schema version {version}, this program reads 1 and {SCHEMA_VERSION}")
    try:
        current = from_schema_1(content) if version == 1 else content
        return msgspec.json.decode(current, type=Results, dec_hook=decode_path)
    except msgspec.MsgspecError as error:
        raise StudyError(f"{path}: not a results document ({explain(error)})") from error
