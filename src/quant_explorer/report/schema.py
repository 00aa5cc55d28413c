"""The JSON Schema of the results document, committed beside this file as `full_results.schema.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quant_explorer.analysis.results import Results
from quant_explorer.core.artifact import write_atomically

SCHEMA_PATH = Path(__file__).with_name("full_results.schema.json")


def schema_json() -> bytes:
    """Return the JSON Schema of `full_results.json` and `multi_results.json`."""
    schema = msgspec.json.encode(msgspec.json.schema(Results, schema_hook=_path_schema), order="sorted")
    return msgspec.json.format(schema, indent=2) + b"\n"


def _path_schema(kind: type) -> dict[str, str]:
    if kind is Path:
        return {"type": "string"}
    raise NotImplementedError(kind)


def write_schema() -> None:
    """Bring the committed schema up to date: `python -m quant_explorer.report.schema`."""
    write_atomically(SCHEMA_PATH, schema_json())


if __name__ == "__main__":
    write_schema()
