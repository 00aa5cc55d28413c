"""Figures that the documents quote are those of the committed results."""

from __future__ import annotations

import json

from tests.docs.documents import ROOT


def test_the_false_alarms_are_those_that_were_measured() -> None:
    found = json.loads((ROOT / "results" / "benchmarks" / "aa_onnxruntime.json").read_bytes())
    seen = found["detected"]
    low, high = (f"{100 * end:.1f} %" for end in found["false_alarm_rate_ci"])
    text = " ".join((ROOT / "docs" / "methodology.md").read_text().split())
    for quoted in (
        f"With `{found['runtime']}`, over {found['comparisons']} comparisons of {found['rounds']} rounds,",
        f"it found {found['false_alarms']} false alarms ({low} to {high})",
        f"a slowdown of 1 % in {seen['1%']} of them, of 2 % in {seen['2%']}, of 3 % in {seen['3%']}",
        f"of 5 % in {seen['5%']} and of 10 % in {seen['10%']}",
    ):
        assert quoted in text
