"""What budgets pick, in words: for `pick` and for a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from quant_explorer.analysis.decide.decision import Decision, Obstacle
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.core.units import format_count, list_some


def describe_budgets(budgets: Budgets) -> str:
    """Return the limits in words."""
    percentile = "" if budgets.percentile == "p50" else f"{budgets.percentile} "
    limits = (
        ("files", budgets.size_bytes, 1e6, "MB"),
        ("peak memory", budgets.memory_bytes, 1e6, "MB"),
        (f"{percentile}latency", budgets.latency_s, 1e-3, "ms"),
        ("accuracy drop", budgets.accuracy_drop_pp, 1, "pp"),
    )
    parts = [
        f"{name} at most {value / unit:g} {sign}" for name, value, unit, sign in limits if value is not None
    ]
    by = " (by the bad end of each interval)" if parts and budgets.use_ci else ""
    on = f", on {' or '.join(budgets.runtimes)}" if budgets.runtimes else ""
    return (", ".join(parts) or "no budget") + by + on


def describe_decision(decision: Decision) -> str:
    """Return what is within the budgets and what to ship, or what comes closest and what costs most."""
    return _describe_outcome(decision) + describe_split(decision.judged_on)


def describe_split(judged_on: str) -> str:
    """Return a sentence with a blank before it; empty where no accuracy was judged."""
    return f" Accuracy was judged on {judged_on}." if judged_on else ""


def _describe_outcome(decision: Decision) -> str:
    limits = describe_budgets(decision.budgets)
    count = len(decision.within) + len(decision.rejected)
    if decision.chosen is not None:
        return (
            f"Within {limits}: {len(decision.within)} of {format_count(count, 'variant')}. Ship "
            f"{decision.chosen} ({decision.rule}).{describe_ties(decision.tied)}"
        )
    if decision.closest is not None and decision.obstacle is not None:
        over = "; ".join(decision.closest.over)
        return (
            f"Within {limits}: none of {format_count(count, 'variant')}. {decision.closest.name} comes "
            f"closest: {over}. {_describe_obstacle(decision.obstacle, count)}"
        )
    if decision.within:
        return f"Within {limits}: {format_count(len(decision.within), 'variant')}, but {decision.rule}."
    return f"Within {limits}: {decision.rule}."


def describe_ties(tied: Sequence[str]) -> str:
    """Return a sentence with a blank before it; empty where nothing ties."""
    return f" Nothing measured separates it from {list_some(tied)}." if tied else ""


def _describe_obstacle(obstacle: Obstacle, count: int) -> str:
    costs = f"The limit of {obstacle.budget} costs most:"
    if obstacle.freed:
        return f"{costs} without it, {list_some(obstacle.freed)} would be within."
    exceeding = f"{obstacle.rejected} of {format_count(count, 'variant')}"
    return f"{costs} it rejects {exceeding}, and none is within without it."
