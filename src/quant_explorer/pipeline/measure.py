"""Artifact -> Measurement: everything about one variant but latency, from a fresh worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.errors import BuildError, WorkerDiedError, WorkerError, WorkerTimeoutError, explain
from quant_explorer.core.measurement import EnergyBlock, Executed, Measurement, PeakMemory, Status
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import ParameterValue
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.machine import counters
from quant_explorer.machine.topology import idle_cores, measuring_cores
from quant_explorer.metrics.accuracy import Scored, score
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.scoring import score_split
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.timing.contender import Contender, workers_that_fit
from quant_explorer.pipeline.worker.messages import Loading, Opened, Opening
from quant_explorer.pipeline.worker.process import Worker, runtime_path

# Of the multiply-accumulates of a static INT8 variant; the gate of `gate-size` is stricter.
LEAST_STATIC_INT8_FRACTION = 0.5
_NAMED = 3


def open_worker(
    artifact: Artifact,
    runtime: Runtime,
    run: RunFolder,
    protocol: MeasurementProtocol,
    cores: tuple[int, ...] | None = None,
) -> Worker:
    """Start a fresh process for an artifact, pinned to `cores`; the measuring cores without any."""
    options = artifact.manifest.options
    worker = start_worker(runtime, options, run, protocol, cores)
    worker.assign(Opening(options, str(artifact.folder)))
    return worker


def start_worker(
    runtime: Runtime,
    options: tuple[tuple[str, ParameterValue], ...],
    run: RunFolder,
    protocol: MeasurementProtocol,
    cores: tuple[int, ...] | None = None,
) -> Worker:
    """Start a fresh process that loads a runtime and is told later what to open; `cores` as above."""
    loading = Loading(runtime_path(type(runtime)), options, cores or measuring_cores(protocol.threads))
    return Worker(loading, log=run.log, timeout_s=protocol.answer_timeout_s)


def measure(
    artifact: Artifact,
    blank: Measurement,
    subject: Subject,
    run: RunFolder,
    runtime: Runtime,
    protocol: MeasurementProtocol,
    reference: Scored | None,
    *,
    meanwhile: Callable[[], object],
) -> tuple[Measurement, Scored | None]:
    """Fill in `blank` from one worker, and return the logits with it.

    `meanwhile` is called while the worker finds what other work does not disturb: what ran, and the logits.
    A variant that fails, hangs or dies keeps what was found until then, with its status and reason.
    """
    manifest = artifact.manifest
    found = replace(blank, files=artifact.files, notes=manifest.notes, precision=manifest.spec.precision)
    try:
        with ThreadPoolExecutor(1) as pool, open_worker(artifact, runtime, run, protocol) as worker:
            opened = worker.open(subject.batch(1))
            found = replace(found, cold_start_s=(opened.cold_start_s,), memory_reason=opened.memory_reason)
            found = replace(found, memory=tuple(_peaks(worker, opened, subject, protocol)))
            blocks, no_energy = _energy(worker, subject)
            found = replace(found, energy=blocks, energy_reason=no_energy)

            def inspect_and_score() -> Scored:
                nonlocal found
                # After the memory: a deployment would not do it, and it imports a great deal.
                executed = worker.executed(subject.batch(1))
                found = replace(found, executed=executed)
                check_precision(artifact.manifest.spec, executed)
                helpers = [
                    partial(open_worker, artifact, runtime, run, protocol, cores)
                    for cores in idle_cores(protocol.threads)
                ][: workers_that_fit(Contender(artifact, runtime, found))]
                return score_split(worker, helpers, found.variant.name, subject, protocol)

            scoring = pool.submit(inspect_and_score)
            meanwhile()
            scored = scoring.result()
        labels = subject.dataset.report.labels
        predictions = score(scored, labels, trained=subject.trained, reference=reference)
        return replace(found, predictions=predictions), scored
    except (BuildError, WorkerError) as error:
        return replace(found, status=status_of(error), reason=explain(error)), None


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
        floats = f": {_some(executed.in_float)}" if executed.in_float else ""
        raise BuildError(
            f"named INT8, but its multiply-accumulates ran in {ran}{floats} "
            f"(more than {least:.0%} in int8 is required); choose FP32, or a runtime with INT8 for that"
        )


def _some(operators: Sequence[str]) -> str:
    more = f" and {len(operators) - _NAMED} more" if len(operators) > _NAMED else ""
    return f"{', '.join(operators[:_NAMED])}{more} in float"


def _energy(worker: Worker, subject: Subject) -> tuple[tuple[EnergyBlock, ...], str | None]:
    reason = counters.unavailable(counters.POWERCAP)
    blocks = worker.measure_energy(subject.batch(1), counters.POWERCAP) if reason is None else ()
    return blocks, reason if blocks or reason else "the energy counters did not move"


def _peaks(
    worker: Worker, opened: Opened, subject: Subject, protocol: MeasurementProtocol
) -> Iterator[PeakMemory]:
    if opened.memory_reason is not None:
        return
    for size in sorted({1, max(protocol.batch_sizes)}):
        yield worker.measure_memory(subject.batch(size))
