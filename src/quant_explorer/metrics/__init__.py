"""Metrics: what is found out about a session, an artifact's files, and outputs. One file each.

Size, latency, memory, accuracy, fidelity and energy decide what is built, timed and ranked, and have typed
places from the worker to the report. Any other metric is one of METRICS: each variant is observed by it, in
the worker or by its outputs, and the report has a column for it.
"""

from quant_explorer.core.contracts import Metric, OutputMetric
from quant_explorer.core.registry import Registry

_MEMBERS: tuple[Metric | OutputMetric, ...] = ()

METRICS: Registry[Metric | OutputMetric] = Registry("metric", {metric.name: metric for metric in _MEMBERS})
