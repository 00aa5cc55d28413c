"""Artifact -> Measurement: everything about one variant but latency, from one fresh worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.energy import EnergyBlock
from quant_explorer.core.errors import BuildError, WorkerDiedError, WorkerError, WorkerTimeoutError
from quant_explorer.core.measurement import Executed, Measurement, PeakMemory, Status, Variant
from quant_explorer.datasets import prepare
from quant_explorer.hardware import energy
from quant_explorer.metrics.accuracy import Scored, check_logits, concatenate, score
from quant_explorer.pipeline.environment import measuring_cores
from quant_explorer.pipeline.messages import Opened, Opening
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.settings import Protocol
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker import Worker, runtime_path

# Of the multiply-accumulates of a static INT8 variant; the gate of `gate-size` is stricter.
LEAST_STATIC_INT8_FRACTION = 0.5
# Too few images say nothing; a variant too slow even for these fails by its time-out.
LEAST_SCORED_IMAGES = 100


def open_worker(artifact: Artifact, runtime: Runtime, run: RunFolder, protocol: Protocol) -> Worker:
    """Start a fresh process for an artifact, pinned to the measuring cores."""
    opening = Opening(
        runtime=runtime_path(type(runtime)),
        options=artifact.manifest.options,
        folder=str(artifact.folder),
        cores=measuring_cores(protocol.threads),
    )
    return Worker(opening, log=run.log, timeout_s=protocol.answer_timeout_s)


def measure(
    artifact: Artifact,
    blank: Measurement,
    subject: Subject,
    run: RunFolder,
    runtime: Runtime,
    protocol: Protocol,
    reference: Scored | None,
) -> tuple[Measurement, Scored | None]:
    """Fill in `blank` from one worker, and return the logits with it.

    A variant that fails, hangs or dies keeps what was found until then, with its status and reason.
    """
    found = replace(blank, files=artifact.files, notes=artifact.manifest.notes)
    scored: Scored | None = None
    try:
        with open_worker(artifact, runtime, run, protocol) as worker:
            opened = worker.open(subject.batch(1))
            found = replace(found, cold_start_s=(opened.cold_start_s,), memory_reason=opened.memory_reason)
            # Before anything that a deployment would not do: inspecting imports a great deal.
            found = replace(found, memory=tuple(_peaks(worker, opened, subject, protocol)))
            blocks, no_energy = _energy(worker, subject)
            found = replace(found, energy=blocks, energy_reason=no_energy)
            executed = worker.executed(subject.batch(1))
            found = replace(found, executed=executed)
            check_precision(artifact, executed)
            scored = score_split(worker, found.variant, subject, protocol)
        labels = subject.dataset.report.labels
        predictions = score(scored, labels, trained=subject.trained, reference=reference)
        return replace(found, predictions=predictions), scored
    except (BuildError, WorkerError) as error:
        return replace(found, status=status_of(error), reason=str(error)), None


def status_of(error: BuildError | WorkerError) -> Status:
    """Return the status that an error of building or running a variant is recorded with."""
    if isinstance(error, BuildError):
        return Status.BUILD_FAILED
    if isinstance(error, WorkerTimeoutError):
        return Status.TIMED_OUT
    return Status.DIED if isinstance(error, WorkerDiedError) else Status.FAILED


def check_precision(artifact: Artifact, executed: Executed) -> None:
    """Raise BuildError when an artifact that is named INT8 ran in float."""
    spec = artifact.manifest.spec
    if spec.precision != "int8":
        return
    fraction = executed.fraction("int8")
    least = LEAST_STATIC_INT8_FRACTION if spec.activations == "static" else 0.0
    if fraction <= least:
        ran = ", ".join(f"{name} {executed.fraction(name):.1%}" for name in executed.macs) or "nothing"
        raise BuildError(
            f"named INT8, but its multiply-accumulates ran in {ran} "
            f"(more than {least:.0%} in int8 is required)"
        )


def score_split(worker: Worker, variant: Variant, subject: Subject, protocol: Protocol) -> Scored:
    """Return the logits over the report split, or over a balanced subset if time does not allow all.

    Raises WorkerError for outputs that are not finite or of a wrong shape.
    """
    images = subject.dataset.report
    size = max(protocol.batch_sizes)
    order = balanced_order(images.labels, subject.settings.seed)
    with subject.progress.task(f"score {variant.name}", len(images)) as bar:
        parts: list[Scored] = []
        start = time.monotonic()
        for positions in _chunks(order, size):
            batch = prepare(images.take(positions), subject.spec)
            logits = worker.run(batch)
            check_logits(logits, len(batch), len(subject.dataset.classes))
            parts.append(Scored(positions, logits))
            bar.advance(len(positions))
            enough = len(parts) * size >= LEAST_SCORED_IMAGES
            if enough and time.monotonic() - start > protocol.time_limit_s:
                break
    scored = concatenate(parts)
    by_position = np.argsort(scored.positions)
    return Scored(scored.positions[by_position], scored.logits[by_position])


def balanced_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return all positions in a seeded order whose every beginning is balanced over the classes."""
    rng = np.random.default_rng([seed, 1])
    shuffled = rng.permutation(len(labels)).astype(np.int64)
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        rank[own] = np.arange(len(own))
    return shuffled[np.argsort(rank[shuffled], kind="stable")]


def _chunks(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _energy(worker: Worker, subject: Subject) -> tuple[tuple[EnergyBlock, ...], str | None]:
    reason = energy.unavailable(energy.POWERCAP)
    blocks = worker.measure_energy(subject.batch(1), energy.POWERCAP) if reason is None else ()
    return blocks, reason if blocks or reason else "the energy counters did not move"


def _peaks(worker: Worker, opened: Opened, subject: Subject, protocol: Protocol) -> Iterator[PeakMemory]:
    if opened.memory_reason is not None:
        return
    for size in sorted({1, max(protocol.batch_sizes)}):
        yield worker.measure_memory(subject.batch(size))
