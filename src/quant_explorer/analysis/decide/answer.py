"""The answer of a run: the fastest variant within the margin, or FP32 where nothing is faster than it."""

from __future__ import annotations

from dataclasses import replace

from quant_explorer.analysis.decide.decision import Candidates, Decision, decide
from quant_explorer.analysis.results import Answer, RunInfo, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.core.recipe import BASELINE_CONFIG, CONTROL_CONFIG
from quant_explorer.core.settings.plan import Budgets

# Neither is compressed; the second is the control of what was fine-tuned.
UNCOMPRESSED = (BASELINE_CONFIG, CONTROL_CONFIG)


def find_answer(candidates: Candidates, run: RunInfo) -> Answer:
    """Return what to ship: at the ranked batch size, by the bad end of the interval of the accuracy.

    Where FP32 in some runtime is among the fastest, it is the answer: compression then has to pay in size.
    """
    batch, rules, model = run.ranked_batch, run.rules, candidates.evidence.model
    measured = [variant for variant in candidates.variants if variant.status is Status.OK]
    if measured and all(variant.latency[str(batch)].p50_s is None for variant in measured):
        reason = f"nothing was timed at batch size {batch} yet (`quant-explorer bench` does that)"
        return Answer(model, (), reason)
    budgets = Budgets(accuracy_drop_pp=rules.margin_pp)
    decision = decide([candidates], budgets, batch=batch, rules=rules)
    judged_on = decision.judged_on
    if decision.chosen is None:
        beyond = f"nothing is shown to be within {rules.margin_pp:g} pp: " if decision.closest else ""
        return Answer(model, (), beyond + _explain_none(decision), judged_on)
    names = (decision.chosen, *decision.tied)
    by_name = {variant.name: variant for variant in candidates.variants}
    plain = sorted(
        (name for name in names if by_name[name].config in UNCOMPRESSED),
        key=lambda name: UNCOMPRESSED.index(by_name[name].config),
    )
    if not plain:
        return Answer(model, names, judged_on=judged_on)
    others = tuple(variant for variant in candidates.variants if variant.config not in UNCOMPRESSED)
    compressed = decide([replace(candidates, variants=others)], budgets, batch=batch, rules=rules)
    reason = _compare(candidates, by_name[plain[0]], compressed, run)
    return Answer(model, (plain[0], *(name for name in names if name != plain[0])), reason, judged_on)


def _compare(candidates: Candidates, plain: VariantResult, compressed: Decision, run: RunInfo) -> str:
    """Say why nothing compressed is the answer."""
    within = f"within {run.rules.margin_pp:g} pp"
    if not (compressed.within or compressed.rejected):
        return "no compressed variant was measured"
    if compressed.chosen is None:
        return f"no compressed variant is shown to be {within}: {_explain_none(compressed)}"
    fastest = next(variant for variant in candidates.variants if variant.name == compressed.chosen)
    found = candidates.evidence.timings[run.ranked_batch].compare(fastest.digest, plain.digest)
    if isinstance(found, str):
        return f"no compressed variant {within} compares with it: {found}"
    ratio, interval = found
    size = ""
    if fastest.size.bytes is not None and plain.size.bytes:
        size = f", at {fastest.size.bytes / plain.size.bytes:.2f} of the size"
    return (
        f"no compressed variant {within} is measurably faster; the fastest of them, {fastest.name}, is "
        f"{ratio:.2f} [{interval.low:.2f}, {interval.high:.2f}] times as fast{size}"
    )


def _explain_none(decision: Decision) -> str:
    if decision.closest is None:
        return decision.rule
    return f"{decision.closest.name} comes closest ({'; '.join(decision.closest.over)})"
