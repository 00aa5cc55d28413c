"""What a metric of METRICS finds is kept as values, or as the reason why there are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch, Metric, OutputMetric, Session
from quant_explorer.core.errors import UnsupportedError, explain
from quant_explorer.core.measurement import Observation


def observe(metric: Metric, session: Session, folder: Path, batch: Batch) -> Observation:
    """Return what `metric` finds; values that are not finite never become a figure."""
    return _keep(metric, lambda: metric.observe(session, folder, batch))


def evaluate(metric: OutputMetric, logits: Batch, labels: NDArray[np.int64], *, trained: bool) -> Observation:
    """Return what `metric` makes of logits (n, classes) and labels (n,); as `observe` does.

    `trained` is False for a model that was not trained on these classes.
    """
    if not trained:
        reason = "the model was not trained on these classes: its outputs do not belong to the labels"
        return Observation(metric.name, metric.unit, reason=reason)
    return _keep(metric, lambda: (metric.evaluate(logits, labels),))


def _keep(metric: Metric | OutputMetric, find: Callable[[], Sequence[float]]) -> Observation:
    try:
        values = tuple(float(value) for value in find())
    except UnsupportedError as error:
        return Observation(metric.name, metric.unit, reason=explain(error))
    if not values:
        return Observation(metric.name, metric.unit, reason="the metric returned no value")
    if not all(map(math.isfinite, values)):
        return Observation(metric.name, metric.unit, reason="the metric returned values that are not finite")
    return Observation(metric.name, metric.unit, values)
