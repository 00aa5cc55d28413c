"""The gate's findings for a CI system: JUnit XML, and a summary in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from quant_explorer.analysis.decide.regression import Check
from quant_explorer.core.units import format_count
from quant_explorer.report.columns import Table
from quant_explorer.report.markdown import markdown_table

_HEADINGS = ("variant", "model", "rule", "what was found")
_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
# What XML 1.0 does not allow in a text, in whatever form.
_CONTROLS = {code: " " for code in range(32) if chr(code) not in "\t\n\r"}


def junit_xml(checks: Sequence[Check]) -> bytes:
    """Return the checks as JUnit XML: a test case each, with a failure or the reason why it was skipped."""
    counts = Counter(check.verdict for check in checks)
    suite = ElementTree.Element(
        "testsuite",
        name="quant-explorer gate",
        tests=str(len(checks)),
        failures=str(counts["failed"]),
        errors="0",
        skipped=str(counts["skipped"]),
    )
    for check in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=check.model or "all", name=f"{check.variant}: {check.rule}"
        )
        message = check.message.translate(_CONTROLS)
        if check.verdict == "failed":
            ElementTree.SubElement(case, "failure", message=message).text = message
        elif check.verdict == "skipped":
            ElementTree.SubElement(case, "skipped", message=message)
    ElementTree.indent(suite)
    return f"{_DECLARATION}\n{ElementTree.tostring(suite, encoding='unicode')}\n".encode()


def summarize_gate(checks: Sequence[Check]) -> str:
    """Return the verdict in one sentence."""
    counts = Counter(check.verdict for check in checks)
    held = format_count(len(checks), "check")
    found = format_count(counts["failed"], "regression") if counts["failed"] else "no regression"
    return f"{found} in {held} ({counts['skipped']} skipped)"


def gate_markdown(checks: Sequence[Check]) -> str:
    """Return the verdict, the regressions, and why checks were skipped."""
    parts = [f"# Gate: {summarize_gate(checks)}"]
    if failed := [check for check in checks if check.verdict == "failed"]:
        parts += ["## Regressions", markdown_table(findings_table(failed))]
    if skipped := [check for check in checks if check.verdict == "skipped"]:
        parts += ["## Skipped", markdown_table(findings_table(skipped))]
    return "\n\n".join(parts) + "\n"


def findings_table(checks: Sequence[Check]) -> Table:
    """Return checks as a table."""
    rows = tuple((check.variant, check.model, check.rule, check.message) for check in checks)
    return Table("Regressions", _HEADINGS, (False,) * len(_HEADINGS), rows)
