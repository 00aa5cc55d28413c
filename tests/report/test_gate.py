from __future__ import annotations

from xml.etree import ElementTree

from quant_explorer.analysis.decide.regression import Check
from quant_explorer.report.gate import gate_markdown, junit_xml, summarize_gate

CHECKS = (
    Check("small_cnn", "int8@eager", "size", "passed", "the same"),
    Check("small_cnn", "int8@eager", "accuracy", "failed", 'lost <9 pp> & "more"\x00 | all'),
    Check("", "static_int8*", "latency", "skipped", "another machine"),
)


def test_a_ci_system_reads_every_check_with_its_message() -> None:
    suite = ElementTree.fromstring(junit_xml(CHECKS))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [
        "int8@eager: size",
        "int8@eager: accuracy",
        "static_int8*: latency",
    ]
    failure, skipped = cases[1].find("failure"), cases[2].find("skipped")
    assert failure is not None
    assert failure.get("message") == 'lost <9 pp> & "more"  | all'
    assert skipped is not None
    assert list(cases[0]) == []


def test_the_summary_has_regressions_before_what_was_skipped() -> None:
    text = gate_markdown(CHECKS)
    first = "# Gate: 1 regression in 3 checks (1 skipped)"
    parts = (first, "## Regressions", "\\| all |", "## Skipped", "another")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_without_a_regression_it_says_so() -> None:
    assert summarize_gate(CHECKS[:1]) == "no regression in 1 check (0 skipped)"
