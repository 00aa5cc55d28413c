from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from quant_explorer.report.render import encode_results
from quant_explorer.testing.replay import Scene
from results_schema import SCHEMA_PATH, schema_json
from tests.analysis.replayed import BROKEN, ORDINARY, ranked


def test_the_committed_schema_is_current() -> None:
    assert SCHEMA_PATH.read_bytes() == schema_json(), "make schema"


@pytest.mark.parametrize("scene", [Scene(), Scene(trained=False), Scene(rounds=0)])
def test_documents_are_valid(tmp_path: Path, scene: Scene) -> None:
    document = json.loads(encode_results(ranked(tmp_path, (*ORDINARY, BROKEN), scene)))
    jsonschema.Draft202012Validator(json.loads(schema_json())).validate(document)


def test_a_document_with_a_wrong_figure_is_not(tmp_path: Path) -> None:
    document = json.loads(encode_results(ranked(tmp_path, ORDINARY)))
    document["variants"][0]["size"]["bytes"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(schema_json())).validate(document)


def test_the_fields_are_those_the_report_promises(tmp_path: Path) -> None:
    document = json.loads(encode_results(ranked(tmp_path, ORDINARY)))
    assert {"schema_version", "run", "environment", "objectives", "variants"} <= set(document)
    variant = document["variants"][0]
    assert {"name", "config", "runtime", "model", "digest", "status", "reason"} <= set(variant)
    assert "bytes" in variant["size"]
    figures = {"p50_s", "p50_ci_s", "p95_s", "p99_s", "mean_s", "calls", "rounds"}
    assert figures | {"speedup", "speedup_ci", "speedup_same_runtime"} <= set(variant["latency"]["1"])
    assert "peak_bytes" in variant["memory"]
    assert "cold_start_s" in variant
    figures = {"top1", "top1_ci", "top5", "per_class", "diff_pp", "diff_ci_pp", "mcnemar_p", "verdict"}
    assert figures | {"images"} <= set(variant["accuracy"])
    assert "int8_mac_fraction" in variant["executed"]
    assert {"on_frontier", "probability", "dominated_by"} <= set(variant["frontier"])
