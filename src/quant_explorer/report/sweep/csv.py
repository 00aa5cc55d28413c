"""CSV from frozen dataclasses: a column a field, an empty cell for what is None."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


def encode_csv(kind: type[R], rows: Sequence[R]) -> bytes:
    """Return the rows under a line of headings, as RFC 4180 has it but for plain line ends."""
    names = [field.name for field in fields(kind)]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return stream.getvalue().encode()
