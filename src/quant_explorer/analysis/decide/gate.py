"""The size gate: static INT8 must be small, there, and really INT8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.core.recipe import BASELINE_CONFIG

MAX_SIZE_RATIO = 0.5
MIN_INT8_MAC_FRACTION = 0.9
STATIC = "static_int8"


@dataclass(frozen=True)
class Violation:
    """One cell (a config on a runtime, of one model) that does not pass, and why."""

    model: str
    cell: str
    kind: Literal["size", "missing", "int8_mac_fraction"]
    message: str


def gate_size(results: Results, *, models: Sequence[str] | None = None) -> tuple[Violation, ...]:
    """Return what is wrong with the static-INT8 cells of a multi-bench result; empty when nothing is.

    A cell is a configuration named `static_int8...` on a runtime. Each such cell is expected of every model
    in `models` (default: all that the results hold), but for one that a runtime offers to no model (it is
    "unsupported" for all) while it offers another. A cell is missing when it is absent or its status is not
    "ok"; the message gives the reason. The size limit is 50 % of the same model's `fp32_baseline` on the same
    runtime, the limit of the INT8 share of multiply-accumulates is 0.9.
    """
    cells = _expected_cells(results)
    if not cells:
        return (Violation("", f"{STATIC}*", "missing", "the results hold no static INT8 configuration"),)
    found = {(variant.model, variant.config, variant.runtime): variant for variant in results.variants}
    violations = [
        violation
        for model in (results.models if models is None else models)
        for config, runtime in cells
        for violation in _judge(
            model,
            f"{config}@{runtime}",
            found.get((model, config, runtime)),
            found.get((model, BASELINE_CONFIG, runtime)),
        )
    ]
    # Several cells share one FP32 reference: when it is missing, that is one violation.
    return tuple(dict.fromkeys(violations))


def _expected_cells(results: Results) -> tuple[tuple[str, str], ...]:
    static = [variant for variant in results.variants if variant.config.startswith(STATIC)]
    offered = {
        (variant.config, variant.runtime) for variant in static if variant.status is not Status.UNSUPPORTED
    }
    offering = {runtime for _, runtime in offered}
    cells = dict.fromkeys((variant.config, variant.runtime) for variant in static)
    return tuple(cell for cell in cells if cell in offered or cell[1] not in offering)


def _judge(
    model: str, cell: str, variant: VariantResult | None, reference: VariantResult | None
) -> Iterator[Violation]:
    if variant is None:
        yield Violation(model, cell, "missing", "not in the results")
        return
    if variant.status is not Status.OK:
        yield Violation(model, cell, "missing", f"it {variant.status.explain(variant.reason)}")
        return
    yield from _judge_size(model, cell, variant, reference)
    fraction = variant.executed.int8_mac_fraction
    if fraction is None:
        reason = variant.executed.reasons.get("int8_mac_fraction", "not reported")
        yield Violation(model, cell, "int8_mac_fraction", f"unknown: {reason}")
    elif fraction < MIN_INT8_MAC_FRACTION:
        message = f"{fraction:.3f} of the MACs ran in INT8, at least {MIN_INT8_MAC_FRACTION} must"
        yield Violation(model, cell, "int8_mac_fraction", message)


def _judge_size(
    model: str, cell: str, variant: VariantResult, reference: VariantResult | None
) -> Iterator[Violation]:
    if reference is None or reference.size.bytes is None or reference.status is not Status.OK:
        if reference is None:
            why = "it is not in the results"
        elif reference.status is not Status.OK:
            why = f"it {reference.status.explain(reference.reason)}"
        else:
            why = reference.size.reasons.get("bytes", "not recorded")
        message = f"no size of {BASELINE_CONFIG}@{variant.runtime} to compare with ({why})"
        yield Violation(model, f"{BASELINE_CONFIG}@{variant.runtime}", "missing", message)
    elif variant.size.bytes is None:
        reason = variant.size.reasons.get("bytes", "not recorded")
        yield Violation(model, cell, "missing", f"no size: {reason}")
    elif variant.size.bytes > MAX_SIZE_RATIO * reference.size.bytes:
        ratio = variant.size.bytes / reference.size.bytes
        message = f"{variant.size.bytes:,} bytes, {ratio:.1%} of FP32's; the limit is {MAX_SIZE_RATIO:.0%}"
        yield Violation(model, cell, "size", message)
