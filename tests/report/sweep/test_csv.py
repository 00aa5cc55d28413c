from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from quant_explorer.report.sweep.csv import encode_csv


@dataclass(frozen=True)
class Row:
    name: str
    value: float | None


def test_what_is_none_is_an_empty_cell_and_text_comes_back_as_it_was() -> None:
    rows = [Row('a "quoted", text\nof two lines', 0.1), Row("", None)]
    read = list(csv.DictReader(io.StringIO(encode_csv(Row, rows).decode(), newline="")))
    assert read == [{"name": rows[0].name, "value": "0.1"}, {"name": "", "value": ""}]


def test_without_rows_the_headings_are_there() -> None:
    assert encode_csv(Row, []) == b"name,value\n"
