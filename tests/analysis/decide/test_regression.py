from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.analysis.decide.regression import Check, gate
from quant_explorer.analysis.results import Results
from quant_explorer.core.errors import StudyError
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.limits import GateLimits
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.replayed import BASELINE, ORDINARY, ranked

INT8 = Played("int8", slowness=0.25, wrong=40, size_bytes=250_000, int8_macs=990)
MANY = tuple(Played(f"variant_{number}", slowness=0.5, wrong=40) for number in range(30))


def failed(
    results: Results, baseline: Results, limits: GateLimits | None = None
) -> dict[tuple[str, str], str]:
    checks = gate(results, baseline, limits or GateLimits())
    return {(check.variant, check.rule): check.message for check in checks if check.verdict == "failed"}


def of_rule(checks: tuple[Check, ...], variant: str, rule: str) -> Check:
    (found,) = [check for check in checks if (check.variant, check.rule) == (variant, rule)]
    return found


@pytest.mark.parametrize(
    ("changed", "rule", "message"),
    [
        (
            replace(INT8, size_bytes=253_000),
            "size",
            "250,000 to 253,000 bytes (+1.2%), at most +1.0%",
        ),
        (replace(INT8, int8_macs=900), "int8_mac_fraction", "0.990 to 0.900 of the MACs in INT8"),
        (replace(INT8, wrong=43), "accuracy", "90.00 to 89.25 % of 400 images (-0.75 pp), at most -0.5 pp"),
        (replace(INT8, slowness=0.275), "latency", "1.10"),
        (replace(INT8, status=Status.DIED, reason="killed"), "measured", "it died: killed"),
    ],
)
def test_each_rule_finds_its_regression_and_no_other(
    tmp_path: Path, changed: Played, rule: str, message: str
) -> None:
    before = ranked(tmp_path / "a", (BASELINE, INT8))
    found = failed(ranked(tmp_path / "b", (BASELINE, changed)), before)
    assert list(found) == [("int8@eager", rule)]
    assert found["int8@eager", rule].startswith(message)


def test_what_is_better_or_at_the_limit_passes(tmp_path: Path) -> None:
    before = ranked(tmp_path / "a", (BASELINE, INT8))
    better = replace(INT8, slowness=0.2, wrong=30, size_bytes=252_500, memory_bytes=90_000_000)
    assert failed(ranked(tmp_path / "b", (BASELINE, better)), before) == {}
    lossy = replace(INT8, wrong=42)
    assert failed(ranked(tmp_path / "c", (BASELINE, lossy)), before) == {}


def test_memory_is_held_where_it_is_asked_for(tmp_path: Path) -> None:
    before = ranked(tmp_path / "a", (BASELINE, INT8))
    after = ranked(tmp_path / "b", (BASELINE, replace(INT8, memory_bytes=60_000_000)))
    assert list(failed(after, before, GateLimits(max_memory_growth=0.1))) == [("int8@eager", "peak memory")]


def test_a_variant_that_is_gone_is_a_regression_and_a_new_one_is_none(tmp_path: Path) -> None:
    fewer, more = ranked(tmp_path / "a", (BASELINE,)), ranked(tmp_path / "b", (BASELINE, INT8))
    assert failed(fewer, more) == {("int8@eager", "measured"): "it is not in the results"}
    assert failed(more, fewer) == {}


def test_latency_is_not_held_on_another_machine_and_accuracy_not_on_other_images(tmp_path: Path) -> None:
    before = ranked(tmp_path / "a", (BASELINE, INT8))
    slow = replace(INT8, slowness=0.5)
    elsewhere = ranked(tmp_path / "b", (BASELINE, slow), Scene(environment="other", images=200))
    checks = gate(elsewhere, before, GateLimits())
    latency = of_rule(checks, "int8@eager", "latency")
    assert latency.verdict == "skipped"
    assert "CPU CPU of env-a there, CPU of other here" in latency.message
    accuracy = of_rule(checks, "int8@eager", "accuracy")
    assert (accuracy.verdict, accuracy.message) == ("skipped", "scored on other images")


def test_latency_is_not_held_where_other_work_took_the_cores(tmp_path: Path) -> None:
    quiet, busy = Scene(), Scene(disturbed=4)
    slow = replace(INT8, slowness=0.5)
    for name, then, now in (("now", quiet, busy), ("for the baseline", busy, quiet)):
        before = ranked(tmp_path / name / "a", (BASELINE, INT8), then)
        checks = gate(ranked(tmp_path / name / "b", (BASELINE, slow), now), before, GateLimits())
        latency = of_rule(checks, "int8@eager", "latency")
        assert (latency.verdict, latency.message) == (
            "skipped",
            f"other work took the measuring cores too often {name}",
        )


def test_an_untrained_model_is_held_by_its_agreement(tmp_path: Path) -> None:
    scene = Scene(trained=False)
    before = ranked(tmp_path / "a", (BASELINE, INT8), scene)
    after = ranked(tmp_path / "b", (BASELINE, replace(INT8, wrong=60)), scene)
    assert list(failed(after, before)) == [("int8@eager", "agreement")]


def test_the_size_gate_is_one_of_the_rules_for_what_passed_it_before(tmp_path: Path) -> None:
    static = replace(INT8, config="static_int8_per_tensor", size_bytes=498_000)
    large = replace(static, size_bytes=502_000)
    before, after = (
        ranked(tmp_path / name, (BASELINE, gated)) for name, gated in (("a", static), ("b", large))
    )
    assert list(failed(after, before)) == [("static_int8_per_tensor@eager", "gate-size: size")]
    assert failed(after, after) == {}


def test_without_a_common_variant_there_is_nothing_to_compare(tmp_path: Path) -> None:
    before = ranked(tmp_path / "a", ORDINARY)
    after = ranked(tmp_path / "b", (Played("fp32_baseline", model="other"),))
    with pytest.raises(StudyError, match="nothing to compare"):
        gate(after, before, GateLimits())


@pytest.mark.slow
def test_repeats_of_an_unchanged_run_raise_no_alarm_and_what_is_planted_is_found_in_each(
    tmp_path: Path,
) -> None:
    """Thirty variants; the noise leaves about 2 % to the interval of a speed-up, as much as runs aim at."""

    def run(number: int, name: str, *played: Played) -> Results:
        scene = Scene(seed=number, calls=1, noise=0.04, rounds=20, batch_sizes=(1,))
        return ranked(tmp_path / f"{number}-{name}", (BASELINE, *played), scene)

    before = run(1_000, "before", INT8, *MANY)
    planted = {"slow": replace(INT8, slowness=0.275), "lossy": replace(INT8, wrong=48)}
    for number in range(20):
        assert failed(run(number, "same", INT8, *MANY), before) == {}
        for name, rule in (("slow", "latency"), ("lossy", "accuracy")):
            assert list(failed(run(number, name, planted[name], *MANY), before)) == [("int8@eager", rule)]
