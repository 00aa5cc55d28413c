"""The gate on committed results, as a CI job calls it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.report.render import encode_results, load_results
from tests.cli.invoking import Invoke

COMMITTED = Path(__file__).parents[2] / "results" / "cifar10-jpeg" / "full_results.json"


def measured() -> tuple[Results, list[VariantResult]]:
    """The committed results, with the variants that have figures first."""
    results = load_results(COMMITTED)
    return results, sorted(results.variants, key=lambda variant: variant.status != "ok")


def test_results_pass_against_themselves(invoke: Invoke) -> None:
    code, printed = invoke("gate", COMMITTED, "--baseline", COMMITTED)
    assert code == 0
    assert "no regression in" in printed


def test_a_regression_fails_with_its_files(invoke: Invoke, tmp_path: Path) -> None:
    results, (first, *others) = measured()
    assert first.size.bytes is not None
    larger = replace(first, size=replace(first.size, bytes=2 * first.size.bytes))
    (tmp_path / "now.json").write_bytes(encode_results(replace(results, variants=(larger, *others))))
    files = ("--junit", tmp_path / "gate.xml", "--markdown", tmp_path / "gate.md")
    code, printed = invoke("gate", tmp_path / "now.json", "--baseline", COMMITTED, *files)
    assert code == 1
    assert "1 regression in" in printed
    assert ElementTree.parse(tmp_path / "gate.xml").getroot().get("failures") == "1"
    assert "(+100.0%)" in (tmp_path / "gate.md").read_text()


def test_the_limits_are_options(invoke: Invoke, tmp_path: Path) -> None:
    results, (first, *others) = measured()
    assert first.size.bytes is not None
    larger = replace(first, size=replace(first.size, bytes=round(1.05 * first.size.bytes)))
    (tmp_path / "now.json").write_bytes(encode_results(replace(results, variants=(larger, *others))))
    call = ("gate", tmp_path / "now.json", "--baseline", COMMITTED, "--json")
    assert invoke(*call)[0] == 1
    code, printed = invoke(*call, "--max-size-growth", "0.1")
    assert code == 0
    assert {check["verdict"] for check in json.loads(printed)} == {"passed"}


def test_an_unusable_baseline_is_wrong_input(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    for baseline in (tmp_path / "bad.json", tmp_path / "missing.json"):
        code, printed = invoke("gate", COMMITTED, "--baseline", baseline)
        assert code == 2
        assert "not a readable results file" in printed


def test_nothing_in_common_is_no_pass(invoke: Invoke, tmp_path: Path) -> None:
    results = load_results(COMMITTED)
    renamed = tuple(replace(variant, model="other") for variant in results.variants)
    (tmp_path / "now.json").write_bytes(encode_results(replace(results, variants=renamed)))
    code, printed = invoke("gate", tmp_path / "now.json", "--baseline", COMMITTED)
    assert code == 2
    assert "nothing to compare" in printed
