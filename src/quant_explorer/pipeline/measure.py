"""Artifact -> Measurement: everything about one variant but latency, from a fresh worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from quant_explorer.core.contracts import OutputMetric
from quant_explorer.core.data.dataset import Images
from quant_explorer.core.errors import BuildError, WorkerDiedError, WorkerError, WorkerTimeoutError, explain
from quant_explorer.core.measurement import Executed, Measurement, PeakMemory, Predictions, Status
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.core.units import list_some
from quant_explorer.machine import counters
from quant_explorer.machine.topology import idle_cores
from quant_explorer.metrics import METRICS
from quant_explorer.metrics.accuracy import Scored, score
from quant_explorer.metrics.observing import evaluate
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.scoring import score_split
from quant_explorer.pipeline.timing.contender import Contender, workers_that_fit
from quant_explorer.pipeline.worker.messages import Opened
from quant_explorer.pipeline.worker.process import Worker

# Of the multiply-accumulates of a static INT8 variant; the gate of `gate-size` is stricter.
LEAST_STATIC_INT8_FRACTION = 0.5
_NAMED = 3


def measure(
    contender: Contender, experiment: Experiment, reference: Scored | None, *, meanwhile: Callable[[], object]
) -> tuple[Measurement, Scored | None]:
    """Fill in the contender's measurement from one worker, and return the logits with it.

    `meanwhile` is called while the worker finds what other work does not disturb: what ran, and the logits.
    A variant that fails, hangs or dies keeps what was found until then, with its status and reason.
    """
    artifact, runtime, subject = contender.artifact, contender.runtime, experiment.subject
    manifest = artifact.manifest
    found = replace(
        contender.measurement, files=artifact.files, notes=manifest.notes, precision=manifest.spec.precision
    )
    try:
        with ThreadPoolExecutor(1) as pool, experiment.open_worker(artifact, runtime) as worker:
            opened = worker.open(subject.batch(1))
            found = replace(found, cold_start_s=(opened.cold_start_s,), memory_reason=opened.memory_reason)
            found = replace(found, memory=tuple(_peaks(worker, opened, experiment)))
            found = replace(found, energy_reason=counters.unavailable(counters.POWERCAP))
            for metric in METRICS.values():
                if not isinstance(metric, OutputMetric):
                    observed = worker.observe(metric, subject.batch(1))
                    found = replace(found, observations=(*found.observations, observed))

            def inspect_and_score() -> tuple[Scored, Scored | None]:
                nonlocal found
                # After the memory: a deployment would not do it, and it imports a great deal.
                executed = worker.executed(subject.batch(1))
                found = replace(found, executed=executed)
                check_precision(artifact.manifest.spec, executed)
                helpers = [
                    partial(experiment.open_worker, artifact, runtime, cores)
                    for cores in idle_cores(experiment.protocol.threads)
                ][: workers_that_fit(replace(contender, measurement=found))]
                name, dataset = found.variant.name, subject.dataset
                scored = score_split(worker, helpers, name, experiment, dataset.report)
                # It is a small share of the images: no other worker would pay.
                searched = (
                    score_split(worker, (), f"{name} on the search split", experiment, dataset.search)
                    if len(dataset.search)
                    else None
                )
                return scored, searched

            scoring = pool.submit(inspect_and_score)
            meanwhile()
            scored, searched = scoring.result()
        labels = subject.dataset.report.labels[scored.positions]
        evaluated = tuple(
            evaluate(metric, scored.logits, labels, trained=subject.trained)
            for metric in METRICS.values()
            if isinstance(metric, OutputMetric)
        )
        return replace(
            found,
            observations=(*found.observations, *evaluated),
            predictions=_predictions(scored, subject.dataset.report, experiment, reference),
            search_predictions=_predictions(searched, subject.dataset.search, experiment)
            if searched
            else None,
        ), scored
    except (BuildError, WorkerError) as error:
        return replace(found, status=status_of(error), reason=explain(error)), None


def _predictions(
    scored: Scored, images: Images, experiment: Experiment, reference: Scored | None = None
) -> Predictions:
    found = score(scored, images.labels, trained=experiment.subject.trained, reference=reference)
    return replace(found, time_limit_s=experiment.protocol.time_limit_s)


def status_of(error: BuildError | WorkerError) -> Status:
    """Return the status that an error of building or running a variant is recorded with."""
    if isinstance(error, BuildError):
        return Status.BUILD_FAILED
    if isinstance(error, WorkerTimeoutError):
        return Status.TIMED_OUT
    return Status.DIED if isinstance(error, WorkerDiedError) else Status.FAILED


def check_precision(spec: QuantSpec, executed: Executed) -> None:
    """Raise BuildError when files that are named INT8 ran in float, with the operators that did."""
    if spec.precision != "int8":
        return
    fraction = executed.fraction("int8")
    least = LEAST_STATIC_INT8_FRACTION if spec.activations == "static" else 0.0
    if fraction <= least:
        ran = ", ".join(f"{name} {executed.fraction(name):.1%}" for name in executed.macs) or "nothing"
        floats = f": {list_some(executed.in_float, _NAMED)} in float" if executed.in_float else ""
        raise BuildError(
            f"named INT8, but its multiply-accumulates ran in {ran}{floats} "
            f"(more than {least:.0%} in int8 is required); choose FP32, or a runtime with INT8 for that"
        )


def _peaks(worker: Worker, opened: Opened, experiment: Experiment) -> Iterator[PeakMemory]:
    if opened.memory_reason is not None:
        return
    for size in _memory_sizes(experiment.protocol):
        yield worker.measure_memory(experiment.subject.batch(size))


def _memory_sizes(protocol: MeasurementProtocol) -> tuple[int, ...]:
    return tuple(sorted({1, max(protocol.batch_sizes)}))


def find_missing(found: Measurement, experiment: Experiment) -> str | None:
    """Return what a measurement lacks of what the protocol asks for, or None when it has it all.

    Memory at a batch size that it was not measured at, images that a shorter time limit left out, or a metric
    that was not registered then. What was tried with as much time and could not be had is not missing.
    """
    known = {memory.batch_size for memory in found.memory}
    sizes = [size for size in _memory_sizes(experiment.protocol) if size not in known]
    if sizes and found.memory_reason is None:
        return f"peak memory at batch {', '.join(map(str, sizes))}"
    metrics = METRICS.keys() - {observation.metric for observation in found.observations}
    if metrics:
        return ", ".join(sorted(metrics))
    dataset = experiment.subject.dataset
    if found.search_predictions is None and len(dataset.search):
        return "outputs of the search split"
    for predictions, images in (
        (found.predictions, len(dataset.report)),
        (found.search_predictions, len(dataset.search)),
    ):
        if predictions is not None and len(predictions.positions) < images:
            allowed = predictions.time_limit_s
            if allowed is None or allowed < experiment.protocol.time_limit_s:
                return f"outputs of {images - len(predictions.positions)} of {images} images"
    return None
