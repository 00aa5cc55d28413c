"""What a worker does with a metric: its values are kept, or the reason why there are none."""

from __future__ import annotations

import math
from pathlib import Path

from quant_explorer.core.contracts import Batch, Metric, Session
from quant_explorer.core.errors import UnsupportedError, explain
from quant_explorer.core.measurement import Observation


def observe(metric: Metric, session: Session, folder: Path, batch: Batch) -> Observation:
    """Return what `metric` finds; values that are not finite never become a figure."""
    try:
        values = tuple(float(value) for value in metric.observe(session, folder, batch))
    except UnsupportedError as error:
        return Observation(metric.name, metric.unit, reason=explain(error))
    if not values:
        return Observation(metric.name, metric.unit, reason="the metric returned no value")
    if not all(map(math.isfinite, values)):
        return Observation(metric.name, metric.unit, reason="the metric returned values that are not finite")
    return Observation(metric.name, metric.unit, values)
