"""Do the losses of pruning and of a lower precision add up?

For one runtime, with c_pq the hits (0 or 1 an image) of the model pruned by p in precision q, and p = 0 and
q = fp32 standing for nothing done, the excess of a pair is what the two lose together beyond the sum of what
each loses alone:

    excess = (c_00 - c_pq) - (c_00 - c_p0) - (c_00 - c_0q) = c_p0 + c_0q - c_00 - c_pq

averaged over the images that all four have seen. It is the interaction of a 2 x 2 factorial experiment
(Fisher, The Design of Experiments, 1935, chapter 6), paired by image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.evidence import Evidence
from quant_explorer.core.settings.plan import Cell, SweepPlan
from quant_explorer.stats.paired import mean_of_changes

ADDS_UP, COMPOUNDS, COMPENSATES = "adds up", "compounds", "compensates"


@dataclass(frozen=True)
class Interaction:
    """One pruning level with one precision on one runtime, in percentage points of top-1.

    `verdict` is "adds up" whenever the interval of `excess_pp` holds 0, "compounds" when the two lose more
    together than alone, "compensates" when less. Figures are None with a `reason`.
    """

    seed: int
    runtime: str
    pruning: float
    precision: str
    images: int = 0
    pruning_loss_pp: float | None = None
    precision_loss_pp: float | None = None
    joint_loss_pp: float | None = None
    excess_pp: float | None = None
    excess_low_pp: float | None = None
    excess_high_pp: float | None = None
    verdict: str = ""
    reason: str = ""


def find_interactions(seed: int, evidence: Evidence, plan: SweepPlan) -> tuple[Interaction, ...]:
    """Return the interaction of every pruned cell in a lower precision, on every runtime that was tried."""
    return tuple(
        _interaction(seed, evidence, plan, measurement.variant.runtime, cell)
        for measurement in evidence.measurements
        if (cell := plan.cell(measurement.variant.config)) and cell.pruning and cell.precision != "fp32"
    )


def _interaction(seed: int, evidence: Evidence, plan: SweepPlan, runtime: str, cell: Cell) -> Interaction:
    # c_00, c_p0, c_0q, c_pq
    corners = [(0.0, "fp32"), (cell.pruning, "fp32"), (0.0, cell.precision), (cell.pruning, cell.precision)]
    found = Interaction(seed, runtime, cell.pruning, cell.precision)
    digests = [_digest(evidence, plan, runtime, *corner) for corner in corners]
    missing = [
        f"{precision} pruned by {pruning:g}"
        for (pruning, precision), digest in zip(corners, digests, strict=True)
        if digest is None
    ]
    if missing:
        return replace(found, reason=f"not scored on {runtime}: {', '.join(missing)}")
    hits = [evidence.hits[digest] for digest in digests if digest is not None]
    common: NDArray[np.int64] = reduce(np.intersect1d, [hit.positions for hit in hits])
    if not len(common):
        return replace(found, reason="the four variants share no image")
    plain, pruned, lowered, both = (hit.at(common).astype(np.float64) for hit in hits)
    excess, interval = mean_of_changes(pruned + lowered - plain - both)
    sign = COMPOUNDS if excess > 0 else COMPENSATES
    return replace(
        found,
        images=len(common),
        pruning_loss_pp=100 * float((plain - pruned).mean()),
        precision_loss_pp=100 * float((plain - lowered).mean()),
        joint_loss_pp=100 * float((plain - both).mean()),
        excess_pp=100 * excess,
        excess_low_pp=100 * interval.low,
        excess_high_pp=100 * interval.high,
        verdict=ADDS_UP if interval.contains(0.0) else sign,
    )


def _digest(evidence: Evidence, plan: SweepPlan, runtime: str, pruning: float, precision: str) -> str | None:
    """Return the scored variant at one corner of the square."""
    return next(_digests(evidence, plan, runtime, pruning, precision), None)


def _digests(
    evidence: Evidence, plan: SweepPlan, runtime: str, pruning: float, precision: str
) -> Iterator[str]:
    for measurement in evidence.measurements:
        cell = plan.cell(measurement.variant.config)
        if (
            cell is None
            or measurement.variant.runtime != runtime
            or measurement.variant.digest not in evidence.hits
        ):
            continue
        if (cell.pruning, cell.precision) == (pruning, precision):
            yield measurement.variant.digest
