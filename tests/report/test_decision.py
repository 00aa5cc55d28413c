from __future__ import annotations

from quant_explorer.analysis.decide.decision import Decision, Obstacle, Rejection
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.report.decision import describe_budgets, describe_decision

NONE = Decision(Budgets(latency_s=1e-3), None, "no variant was measured", (), (), None, ())


def test_budgets_are_described_in_words() -> None:
    assert describe_budgets(Budgets()) == "no budget"
    limits = Budgets(1.5e6, 4e6, 5e-4, 2.0, percentile="p99", runtimes=("eager", "openvino"))
    assert describe_budgets(limits) == (
        "files at most 1.5 MB, peak memory at most 4 MB, p99 latency at most 0.5 ms, "
        "accuracy drop at most 2 pp (by the bad end of each interval), on eager or openvino"
    )


def test_the_choice_comes_with_what_ties() -> None:
    names = tuple("abcdef")
    decision = Decision(Budgets(), "x", "the fastest of those within all budgets", names, (), None, (), names)
    assert describe_decision(decision) == (
        "Within no budget: 6 of 6 variants. Ship x (the fastest of those within all budgets). "
        "Nothing measured separates it from a, b, c, d and 2 more."
    )


def test_without_a_choice_the_closest_and_the_costliest_budget_are_named() -> None:
    nearest = Rejection("x", ("latency: 2 ms, 1 ms over the 1 allowed",))
    decision = Decision(
        NONE.budgets, None, NONE.rule, (), (nearest,), nearest, (), (), Obstacle("latency", ("x",), 1)
    )
    assert describe_decision(decision) == (
        "Within latency at most 1 ms (by the bad end of each interval): none of 1 variant. x comes closest: "
        "latency: 2 ms, 1 ms over the 1 allowed. "
        "The limit of latency costs most: without it, x would be within."
    )


def test_where_nothing_was_measured_nothing_is_closest() -> None:
    assert describe_decision(NONE).endswith(": no variant was measured.")
