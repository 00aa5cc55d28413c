"""Export: a folder that takes one variant to where it runs, with the SHA-256 of each of its files."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from quant_explorer.core.artifact import sha256_of
from quant_explorer.core.errors import StudyError, explain

# The artifact's folder as it was measured, with its own manifest.
MODEL_FOLDER = "model"
CARD = "MODEL_CARD.md"
PREDICT = "predict.py"
PREPROCESSING = "preprocessing.json"
CLASSES = "classes.json"
REQUIREMENTS = "requirements.txt"
STATEMENT = "statement.json"
# Of the form that `sha256sum --check` reads.
SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file below `folder`, a line each."""
    lines = [f"{sha256_of(path)}  {name}\n" for name, path in _files(folder).items()]
    (folder / SUMS).write_text("".join(lines))


def find_changes(folder: Path) -> tuple[str, ...]:
    """Return what is no longer as `write_sums` found it, a clause each: changed, missing and added files.

    An added file may be imported in place of a library. Raises StudyError when `folder` is no export.
    """
    path = folder / SUMS
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{path}: not a readable list of hashes ({explain(error)}). Expected: a folder that "
            "`quant-explorer export` made."
        ) from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line)
        if found is None or ".." in PurePosixPath(found[2]).parts or PurePosixPath(found[2]).is_absolute():
            raise StudyError(f"{path}:{number}: not a hash and a path inside the folder")
        listed[found[2]] = found[1]
    if missing := [name for name in (STATEMENT, PREDICT, PREPROCESSING) if name not in listed]:
        raise StudyError(f"{path}: lists no {', '.join(missing)}; not an export, or not a whole one")
    there = _files(folder)
    return (
        *(f"{name} is missing" for name in listed if name not in there),
        *(f"{name} changed" for name in listed if name in there and sha256_of(there[name]) != listed[name]),
        *(f"{name} was added" for name in there if name not in listed),
    )


def _files(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    return {name: found[name] for name in sorted(found) if name != SUMS}
