"""Figures that the documents quote are those of the committed results."""

from __future__ import annotations

import json
from typing import Any

from tests.docs.documents import ROOT

RESULTS = ROOT / "results" / "benchmarks"
TEXT = " ".join((ROOT / "docs" / "methodology.md").read_text().split())


def measured(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_bytes())
    return found


def test_the_resolution_is_that_which_was_measured() -> None:
    found = measured("resolution")
    own = found["schemes"]["baselines near"]
    low, high = (f"{100 * end:.1f} %" for end in own["false_alarm_rate_ci"])
    quoted = [
        f"{found['comparisons']} comparisons of {found['rounds']} rounds with {found['variants']} variants",
        f"on {len(found['runtimes'])} runtimes",
        f"({found['cpu']}, {found['seconds_a_comparison']:.0f} s each)",
        f"{own['false_alarms']} of {own['pairs']} pairs were false alarms ({low} to {high})",
        *(f"{name} in {own['detected'][name]}" for name in ("2%", "5%", "10%")),
    ]
    for quote in quoted:
        assert quote in TEXT


def test_the_schemes_under_each_load_are_those_that_were_measured() -> None:
    loads = [measured(f"resolution{load}") for load in ("", "_same_core", "_other_core")]
    assert [found["load"] for found in loads] == ["none", "same core", "other core"]
    alarms = {}
    for name in loads[0]["schemes"]:
        schemes = [found["schemes"][name] for found in loads]
        cells = []
        for scheme in schemes:
            median, most = (f"{100 * scheme[f'half_width_{end}']:.1f} %" for end in ("median", "p90"))
            cells.append(f"{median} and {most}; {scheme['false_alarms']} of {scheme['pairs']}")
        assert f"| {name} | {' | '.join(cells)} |" in TEXT
        alarms[name] = sum(scheme["false_alarms"] for scheme in schemes)
    pairs = sum(found["schemes"]["within a pass"]["pairs"] for found in loads)
    *others, last = alarms.values()
    assert f"In {pairs} pairs the four were wrong {', '.join(map(str, others))} and {last} times" in TEXT
    assert f"95 % is wrong {pairs / 20:.0f} times" in TEXT
    for found, where in zip(
        loads, ("on the idle machine", "load on the same core", "other core"), strict=True
    ):
        assert f"{found['called_too_noisy']} of {found['comparisons']}" in TEXT, where


def test_what_the_gate_finds_is_what_was_measured() -> None:
    found = measured("gate")
    text = " ".join((ROOT / "docs" / "decide.md").read_text().split())
    repeats = f"({found['cpu']}) {found['repeats']} times more"
    slowdown, drop = (
        f"{found[plant]['found']} of {found[plant]['planted']}" for plant in ("slowdown_10%", "drop_2%")
    )
    for quote in (
        f"measures {found['variants']} variants on an idle machine {repeats}",
        f"{len(found['false_alarms'])} false alarms",
        f"slowdown planted in each variant of each repeat was found in {slowdown}",
        f"a drop of 2 points in {drop}",
    ):
        assert quote in text
