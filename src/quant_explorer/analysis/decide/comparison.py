"""Two runs beside each other: each variant that both have, paired where the observations allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.decide.decision import Candidates
from quant_explorer.analysis.evidence import Evidence
from quant_explorer.analysis.results import Reasons, VariantResult
from quant_explorer.core.difference import describe_contrasts, facts_of_environment, find_differences
from quant_explorer.core.errors import StudyError
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.groups import DecisionRules
from quant_explorer.core.units import list_some
from quant_explorer.stats.intervals import FEWEST_FOR_QUOTIENT, Interval, quotient_interval
from quant_explorer.stats.paired import compare_paired

Speed = Literal["faster", "slower", "tied", "not comparable"]
Quality = Literal["gain", "loss", "tie", "not comparable"]


@dataclass(frozen=True)
class VariantComparison:
    """One variant in two runs, A and B; figures that are None have a reason.

    `size_ratio` is B's size over A's. `speed_ratio` is how many times faster B is, each beside the FP32
    baseline of its own run. `diff_pp` is B's top-1 (or agreement) less A's on the `images` that both saw.
    """

    model: str
    name: str
    size_ratio: float | None
    speed: Speed
    speed_ratio: float | None
    speed_ci: Interval | None
    quality: Quality
    diff_pp: float | None
    diff_ci_pp: Interval | None
    images: int
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class RunComparison:
    """Two runs: what both measured, what one of them lacks, and how their environments differ ("" if not)."""

    variants: tuple[VariantComparison, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    environments: str


@dataclass(frozen=True)
class Recorded:
    """A run: its environment, and the variants of each model in it."""

    environment: Environment
    candidates: tuple[Candidates, ...]


def compare_runs(run_a: Recorded, run_b: Recorded, batch: int, rules: DecisionRules) -> RunComparison:
    """Compare every variant that both runs measured, by its name.

    Speeds compare when the machine is the same, whatever the versions; what differs is named. Raises
    StudyError when the runs have no variant in common.
    """
    sides = [_by_name(run.candidates) for run in (run_a, run_b)]
    common = [key for key in sides[0] if key in sides[1]]
    if not common:
        first, second = (
            list_some([f"{name} of {model}" for model, name in side]) or "none" for side in sides
        )
        raise StudyError(
            "nothing to compare: no variant of the same model and name was measured in both runs. The first "
            f"has {first}; the second has {second}."
        )
    there, here = run_a.environment, run_b.environment
    found = find_differences(facts_of_environment(there), facts_of_environment(here))
    differ = describe_contrasts(found) if there.digest != here.digest else ""
    elsewhere = "" if there.is_same_machine(here) else f"measured on another machine ({differ})"
    return RunComparison(
        tuple(_compare(key, sides[0][key], sides[1][key], batch, rules, elsewhere) for key in common),
        only_in_a=_alone(sides[0], sides[1]),
        only_in_b=_alone(sides[1], sides[0]),
        environments=differ,
    )


_Side = tuple[Evidence, VariantResult]


def _by_name(candidates: Sequence[Candidates]) -> dict[tuple[str, str], _Side]:
    return {
        (variant.model, variant.name): (found.evidence, variant)
        for found in candidates
        for variant in found.variants
        if variant.status is Status.OK
    }


def _alone(own: Mapping[tuple[str, str], _Side], other: Mapping[tuple[str, str], _Side]) -> tuple[str, ...]:
    return tuple(f"{name} ({model})" for model, name in own if (model, name) not in other)


def _compare(
    key: tuple[str, str], side_a: _Side, side_b: _Side, batch: int, rules: DecisionRules, elsewhere: str
) -> VariantComparison:
    reasons: Reasons = {}
    sizes = [variant.size.bytes for _, variant in (side_a, side_b)]
    size_ratio = sizes[1] / sizes[0] if sizes[0] and sizes[1] is not None else None
    if size_ratio is None:
        reasons["size_ratio"] = "not recorded in both"
    speed, speed_ratio, speed_ci = _compare_speed(side_a, side_b, batch, rules, elsewhere, reasons)
    quality, diff_pp, diff_ci_pp, images = _compare_quality(side_a, side_b, reasons)
    return VariantComparison(
        *key, size_ratio, speed, speed_ratio, speed_ci, quality, diff_pp, diff_ci_pp, images, reasons
    )


def _compare_speed(
    side_a: _Side, side_b: _Side, batch: int, rules: DecisionRules, elsewhere: str, reasons: Reasons
) -> tuple[Speed, float | None, Interval | None]:
    speedups = [_speedups(side, batch) for side in (side_a, side_b)]
    fewest = min(map(len, speedups))
    if elsewhere or fewest < FEWEST_FOR_QUOTIENT:
        reasons["speed_ratio"] = reasons["speed_ci"] = elsewhere or (
            f"needs at least {FEWEST_FOR_QUOTIENT} rounds of each at batch {batch}, has {fewest}"
        )
        return "not comparable", None, None
    ratio, interval = quotient_interval(speedups[1], speedups[0])
    if interval.low > 1 + rules.epsilon_latency:
        return "faster", ratio, interval
    return ("slower" if interval.high * (1 + rules.epsilon_latency) < 1 else "tied"), ratio, interval


def _speedups(side: _Side, batch: int) -> NDArray[np.float64]:
    """How many times faster than the run's own FP32 baseline, a value a round."""
    evidence, variant = side
    timings = evidence.timings.get(batch)
    if timings is None or variant.digest not in timings.contrasts or evidence.baseline is None:
        return np.array([], dtype=np.float64)
    ratios = np.exp(-timings.log_ratios(variant.digest, timings.baseline))
    return np.asarray(ratios[np.isfinite(ratios)])


def _compare_quality(
    side_a: _Side, side_b: _Side, reasons: Reasons
) -> tuple[Quality, float | None, Interval | None, int]:
    why = ""
    hits = [evidence.hits.get(variant.digest) for evidence, variant in (side_a, side_b)]
    if side_a[0].split_of(side_a[1].digest) != side_b[0].split_of(side_b[1].digest):
        why = "scored on other images"
    elif side_a[0].trained != side_b[0].trained:
        why = "one has accuracy, the other agreement"
    if hits[0] is not None and hits[1] is not None and not why:
        common = np.intersect1d(hits[0].positions, hits[1].positions)
        if len(common):
            found = compare_paired(hits[1].at(common), hits[0].at(common))
            return found.verdict, found.diff_pp, found.interval_pp, len(common)
        why = "scored on other images"
    reasons["diff_pp"] = reasons["diff_ci_pp"] = why or "not scored in both"
    return "not comparable", None, None, 0
