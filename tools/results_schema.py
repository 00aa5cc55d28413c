"""Writes the JSON Schema of the results documents: `python tools/results_schema.py`."""

from __future__ import annotations

from pathlib import Path

import msgspec

import quant_explorer.report
from quant_explorer.analysis.results import Results
from quant_explorer.core.artifact import write_atomically

# In the package, so that whoever reads results documents has it with the program that wrote them.
SCHEMA_PATH = Path(quant_explorer.report.__file__).with_name("full_results.schema.json")


def schema_json() -> bytes:
    """Return the schema as indented JSON with a final newline."""
    schema = msgspec.json.encode(msgspec.json.schema(Results, schema_hook=_path_schema), order="sorted")
    return msgspec.json.format(schema, indent=2) + b"\n"


def _path_schema(kind: type) -> dict[str, str]:
    if kind is Path:
        return {"type": "string"}
    raise NotImplementedError(kind)


if __name__ == "__main__":
    write_atomically(SCHEMA_PATH, schema_json())
