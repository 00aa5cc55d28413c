"""Figures that the documents quote are those of the committed results."""

from __future__ import annotations

import json

from tests.docs.documents import ROOT


def test_the_resolution_is_that_which_was_measured() -> None:
    found = json.loads((ROOT / "results" / "benchmarks" / "resolution.json").read_bytes())
    schemes = found["schemes"]
    own = schemes["nearest baselines"]
    low, high = (f"{100 * end:.1f} %" for end in own["false_alarm_rate_ci"])
    text = " ".join((ROOT / "docs" / "methodology.md").read_text().split())
    quoted = [
        f"{found['comparisons']} comparisons of {found['rounds']} rounds with {found['variants']} variants",
        f"on {len(found['runtimes'])} runtimes",
        f"({found['cpu']}, {found['seconds_a_comparison']:.0f} s each)",
        f"{own['false_alarms']} of {own['pairs']} pairs were false alarms ({low} to {high})",
        *(f"{name} in {own['detected'][name]}" for name in ("2%", "5%", "10%")),
    ]
    for name, scheme in schemes.items():
        median, most = (f"{100 * scheme[f'half_width_{end}']:.1f} %" for end in ("median", "p90"))
        quoted.append(
            f"{name}: half widths of {median} at the median and {most} at the 90th percentile, "
            f"{scheme['false_alarms']} false alarms"
        )
    for quote in quoted:
        assert quote in text
