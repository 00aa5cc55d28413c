"""The script's rules are those of the command line, held together on the same study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from quant_explorer.analysis.decide.decision import Candidates, decide
from quant_explorer.analysis.evidence import gather
from quant_explorer.core.settings.plan import Budgets, Cost, Percentile
from quant_explorer.report.page.sheet import make_sheets
from quant_explorer.stats.paired import compare_paired
from quant_explorer.testing.replay import Scene
from tests.analysis.replayed import RUN
from tests.report.page.browser import opened
from tests.report.page.scene import results_of, varied, write

QUERIES = 100
DECIDE = """query => {
  const found = decide(page.sheets[0], query);
  const exceeding = [...found.excesses].filter(([, list]) => list.length);
  const over = exceeding.map(([row, list]) => [row.name, list.length]);
  return [found.chosen, found.tied, found.within, found.closest, found.obstacle, over];
}"""
Limit = float | None


def a_query(generator: np.random.Generator) -> tuple[Budgets, int, Cost]:
    """Draw limits around what the variants have, some of them absent."""

    def limit(values: list[float]) -> Limit:
        return (
            None
            if generator.random() < 0.4
            else float(generator.choice(values) * generator.uniform(0.9, 1.2))
        )

    percentiles: tuple[Percentile, ...] = ("p50", "p99")
    costs: tuple[Cost, ...] = ("latency", "size", "memory", "energy")
    batch = int(generator.choice([1, 8]))
    runtimes = [name for name in ("eager", "onnxruntime", "openvino") if generator.random() < 0.3]
    budgets = Budgets(
        size_bytes=limit([250_000, 500_000, 1_000_000]),
        memory_bytes=limit([9e6, 50e6, 400e6]),
        latency_s=limit([0.26e-3, 0.4e-3, 1e-3, 2e-3, 8e-3]),
        accuracy_drop_pp=limit([0.5, 1.5, 4.0, 12.0]),
        percentile=percentiles[int(generator.random() < 0.25)],
        runtimes=tuple(runtimes),
    )
    return budgets, batch, costs[int(generator.integers(4))]


def as_asked(budgets: Budgets, batch: int, minimize: Cost) -> dict[str, object]:
    """Return the query as the page's fields give it."""

    def scaled(value: Limit, factor: float) -> Limit:
        return None if value is None else value * factor

    return {
        "size": scaled(budgets.size_bytes, 1e-6), "memory": scaled(budgets.memory_bytes, 1e-6),
        "latency": scaled(budgets.latency_s, 1e3), "drop": budgets.accuracy_drop_pp, "batch": batch,
        "percentile": budgets.percentile, "minimize": minimize, "runtimes": list(budgets.runtimes),
    }  # fmt: skip


@pytest.mark.parametrize(
    "scene",
    [
        Scene(calls=70, search_images=200),
        Scene(trained=False, search_images=200),
        Scene(rounds=4),
    ],
    ids=["trained", "untrained", "short"],
)
def test_the_page_decides_as_the_command_line(tmp_path: Path, browser: Browser, scene: Scene) -> None:
    study = varied(tmp_path, scene)
    results = results_of(study)
    (evidence,) = gather(study, results.environment.digest, RUN.protocol.batch_sizes)
    candidates = Candidates(results.variants, evidence)
    generator = np.random.default_rng(7)
    chosen = set()
    with opened(browser, write(tmp_path, study)) as found:
        for _ in range(QUERIES):
            budgets, batch, minimize = a_query(generator)
            expected = decide([candidates], budgets, batch=batch, minimize=minimize, rules=RUN.rules)
            asked = as_asked(budgets, batch, minimize)
            decided = found.page.evaluate(DECIDE, asked)
            obstacle = expected.obstacle and {
                "name": expected.obstacle.budget,
                "freed": list(expected.obstacle.freed),
                "rejected": expected.obstacle.rejected,
            }
            assert decided == [
                expected.chosen,
                list(expected.tied),
                list(expected.within),
                expected.closest.name if expected.closest else None,
                obstacle,
                [[variant.name, len(variant.over)] for variant in expected.rejected],
            ], asked
            chosen.add(expected.chosen)
    assert len(chosen) > 3  # The queries tell variants apart, and some have no answer.


@pytest.mark.parametrize("rounds", [12, 3])
def test_the_page_compares_as_the_analysis(tmp_path: Path, browser: Browser, rounds: int) -> None:
    study = varied(tmp_path, Scene(rounds=rounds, noise=0.2, drift=0.1))
    results = results_of(study)
    (evidence,) = gather(study, results.environment.digest, RUN.protocol.batch_sizes)
    digests = {variant.name: variant.digest for variant in results.variants}
    compared = 0
    with opened(browser, write(tmp_path, study)) as found:
        names: list[str] = found.page.evaluate("page.sheets[0].rows.map(row => row.name)")
        for first, second in ((a, b) for a in names for b in names if a != b):
            expected = evidence.timings[1].compare(digests[first], digests[second])
            ratio = compare_in(found.page, names.index(first), names.index(second))
            if isinstance(expected, str):
                assert ratio is None
            elif ratio == {"apart": True}:
                assert not expected[1].contains(1.0)
            elif expected[0] >= 1:
                exact = {"point": expected[0], "low": expected[1].low, "high": expected[1].high}
                assert ratio == pytest.approx(exact, rel=1e-5)
                back = compare_in(found.page, names.index(second), names.index(first))
                assert back == pytest.approx(
                    {"point": 1 / exact["point"], "low": 1 / exact["high"], "high": 1 / exact["low"]},
                    rel=0.02,
                )
                compared += 1
    assert compared > 20


def compare_in(page: Page, first: int, second: int) -> dict[str, float] | None:
    script = "([i, j]) => { const s = page.sheets[0]; return compare(s, 1, s.rows[i], s.rows[j]); }"
    found: dict[str, float] | None = page.evaluate(script, [first, second])
    return found


def test_the_page_compares_accuracies_as_the_analysis(tmp_path: Path, browser: Browser) -> None:
    study = varied(tmp_path)
    results = results_of(study)
    (evidence,) = gather(study, results.environment.digest, RUN.protocol.batch_sizes)
    hits = {variant.name: evidence.hits.get(variant.digest) for variant in results.variants}
    script = "([i, j]) => { const s = page.sheets[0]; return compareAccuracy(s, s.rows[i], s.rows[j]); }"
    with opened(browser, write(tmp_path, study)) as found:
        names: list[str] = found.page.evaluate("page.sheets[0].rows.map(row => row.name)")
        for first, second in ((a, b) for a in names for b in names if a != b):
            own, other = hits[first], hits[second]
            assert own is not None
            assert other is not None
            expected = compare_paired(own.right, other.right)
            difference = found.page.evaluate(script, [names.index(first), names.index(second)])
            interval = expected.interval_pp
            exact = {"point": expected.diff_pp, "low": interval.low, "high": interval.high}
            assert difference == pytest.approx(exact, abs=1e-6)


def test_the_epsilons_of_the_run_decide_ties(tmp_path: Path) -> None:
    study = varied(tmp_path)
    rules = replace(RUN.rules, epsilon_latency=0.1, epsilon_size=0.2)
    results = replace(results_of(study), run=replace(RUN, rules=rules))
    (sheet,) = make_sheets(study, results)
    assert (sheet.epsilon_latency, sheet.epsilon_size) == (0.1, 0.2)
