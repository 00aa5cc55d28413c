"""Which class is which output of the model: the order of names, and a list that maps names to outputs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.errors import DataError, SettingsError, explain
from quant_explorer.core.units import list_some

_SHOWN = 10


def order_by_number(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that are whole numbers in order, 2 before 10; raises SettingsError for other names."""
    odd = [name for name in names if not name.isdecimal()]
    if odd:
        raise SettingsError(
            f"--class-order number: not all classes are numbers ({', '.join(sorted(odd)[:_SHOWN])}). "
            "Allowed: name, or a list of names with --classes."
        )
    return tuple(sorted(names, key=lambda name: (int(name), name)))


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the names in a text file, a line for each output of the model.

    Empty lines at the end do not count. Raises DataError for a file that cannot be read, another line that is
    empty, and a name that is there twice.
    """
    try:
        # Editors of Windows put a mark of the encoding first.
        lines = path.expanduser().read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"--classes {path}: not text in UTF-8. Expected: a name a line.") from error
    except OSError as error:
        raise DataError(f"--classes {path}: cannot be read ({explain(error)})") from error
    names = tuple(line.strip() for line in lines)
    if len(names) < 2 or not all(names):
        empty = next((number for number, name in enumerate(names, 1) if not name), len(names) + 1)
        raise DataError(f"--classes {path}, line {empty}: no name. Expected: a name a line, two at least.")
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name in first:
            raise DataError(
                f"--classes {path}, line {number}: {name!r} is there already, in line {first[name]}"
            )
        first[name] = number
    return names


def map_classes(own: Sequence[str], outputs: Sequence[str], where: str) -> NDArray[np.int64]:
    """Return the output of each class, shape (classes,); raises DataError naming classes without one.

    Names may differ in how Unicode composes their letters, as those of folders from macOS do.
    """
    exact = {name: number for number, name in enumerate(outputs)}
    composed = {unicodedata.normalize("NFC", name): number for number, name in enumerate(outputs)}
    position = {name: exact.get(name, composed.get(unicodedata.normalize("NFC", name))) for name in own}
    missing = [name for name in own if position[name] is None]
    if missing:
        raise DataError(
            f"{where} does not hold {list_some(missing, _SHOWN)}, which the data set has. "
            f"Expected: a line for each output, spelled like the data set's classes ({own[0]!r}, ...)."
        )
    return np.array([position[name] for name in own], np.int64)


def warn_of_numbers(names: Sequence[str]) -> str | None:
    """Return a warning where names are numbers and their order as names is another than as numbers."""
    if not all(name.isdecimal() for name in names) or tuple(names) == order_by_number(names):
        return None
    return (
        f"Classes are in the order of their names ({', '.join(names[:4])}, ...), as torchvision has them; "
        "--class-order number puts 2 before 10"
    )
