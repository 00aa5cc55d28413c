"""Whether the figures that an export states hold on this machine: hashes, predictions, latency."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from quant_explorer.analysis.latency import check_twins, collect_timings, latency_of
from quant_explorer.core.data.dataset import Dataset
from quant_explorer.core.difference import describe_contrasts, facts_of_environment, find_differences
from quant_explorer.core.errors import DataError, SettingsError, WorkerError, explain
from quant_explorer.core.export import find_changes
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Predictions
from quant_explorer.core.progress import Progress
from quant_explorer.core.settings.declaration import merge
from quant_explorer.core.settings.groups import PROTOCOL_VERSION
from quant_explorer.core.study import StudyFile
from quant_explorer.core.units import format_ms
from quant_explorer.machine.environment import describe_environment
from quant_explorer.metrics.accuracy import score
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.export.opened import OpenedExport, load_stated_data, noise
from quant_explorer.pipeline.scoring import score_split
from quant_explorer.pipeline.timing.comparison import Comparison, LostWorkerError
from quant_explorer.pipeline.timing.contender import Contender
from quant_explorer.stats.intervals import Interval
from quant_explorer.stats.paired import compare_paired

Verdict = Literal["holds", "does not hold", "not repeated"]


@dataclass(frozen=True)
class Finding:
    """One stated figure, what it is here, and whether it holds; `reason` where that needs one."""

    figure: str
    stated: str
    here: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Verification:
    """What was found of an export; `warnings` are differences of the machine that figures may rest on."""

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing that was repeated came out worse than stated."""
        return all(finding.verdict != "does not hold" for finding in self.findings)


@dataclass(frozen=True)
class Asked:
    """Where the data is (None: as it was), and how much slower a call may be, as a share."""

    data: str | None
    data_dir: Path | None
    max_slowdown: float


def verify_export(folder: Path, asked: Asked, progress: Progress) -> Verification:
    """Check the hashes of an export, and repeat what it states on this machine in fresh processes.

    Files that are not as they were exported are not opened. Raises StudyError for what is no export,
    UnsupportedError where its runtime is missing, DataError for data that was asked for and is other data.
    """
    changes = find_changes(folder)
    if changes:
        return Verification(
            (Finding("files", "as exported", "changed", "does not hold", "; ".join(changes)),)
        )
    files = Finding("files", "as exported", "as exported", "holds")
    export = OpenedExport.load(folder)
    here = _environment(export)
    warnings = tuple(_warn(export, here))
    dataset, missing = _find_data(export, asked, progress)
    protocol = dataclasses.replace(
        export.statement.run.protocol,
        batch_sizes=(export.statement.run.ranked_batch,),
        most_rounds=export.statement.run.protocol.rounds,
    )
    with TemporaryDirectory(prefix="quant-explorer-") as scratch:
        used = dataset or noise(export.artifact.manifest.input, export.artifact.manifest.classes)
        experiment = export.experiment(used, protocol, Path(scratch), progress)
        try:
            quality = (
                _not_repeated(export, missing) if dataset is None else _repeat_predictions(export, experiment)
            )
            latency = _repeat_latency(export, experiment, here, asked.max_slowdown)
        except (LostWorkerError, WorkerError) as error:
            broken = Finding("opening and running", "works", "fails", "does not hold", str(error))
            return Verification((files, broken), warnings)
    return Verification((files, quality, latency), warnings)


def _environment(export: OpenedExport) -> Environment:
    stated = export.statement.environment
    return describe_environment(
        threads=stated.threads, packages=stated.versions.keys(), protocol=PROTOCOL_VERSION
    )


def _warn(export: OpenedExport, here: Environment) -> Iterator[str]:
    manifest, stated = export.artifact.manifest, export.statement.environment
    lacking = [name for name in manifest.needs if name not in export.runtime.cpu_features()]
    if lacking:
        yield (
            f"this CPU lacks {', '.join(lacking)}, which the accuracy of these files needs: they compute "
            "something else here"
        )
    fewer = [name for name in stated.instruction_sets if name not in here.instruction_sets]
    if fewer:
        yield f"this CPU lacks {', '.join(fewer)}, which the latency was measured with"
    differ = find_differences(facts_of_environment(stated), facts_of_environment(here))
    if differ:
        yield f"not as it was measured: {describe_contrasts(differ)}"


def _find_data(export: OpenedExport, asked: Asked, progress: Progress) -> tuple[Dataset | None, str]:
    """Return the images that the figures are of, or why there are none; raises where they were asked for."""
    statement, manifest = export.statement, export.artifact.manifest
    settings = merge(statement.run.settings, {"data": asked.data, "data_dir": asked.data_dir})
    try:
        dataset = load_stated_data(settings, manifest.input, manifest.classes, progress)
        if dataset.digest != statement.measurement.split:
            raise DataError(
                f"{settings.data} has other images than the figures are of (digest {dataset.digest}, "
                f"stated {statement.measurement.split})"
            )
    except (DataError, SettingsError) as error:
        if asked.data is not None or asked.data_dir is not None:
            raise
        return None, explain(error)
    return dataset, ""


def _not_repeated(export: OpenedExport, reason: str) -> Finding:
    return Finding(_quality_name(export), _stated_quality(export), "", "not repeated", reason)


def _repeat_predictions(export: OpenedExport, experiment: Experiment) -> Finding:
    """Score the images again, and compare image by image: nothing but this CPU can make a difference."""
    stated = export.statement.measurement.predictions
    if stated is None:
        return _not_repeated(export, "nothing was scored")
    subject = experiment.subject
    labels = subject.dataset.report.labels
    with experiment.open_worker(export.artifact, export.runtime) as worker:
        worker.open(subject.batch(1))
        scored = score_split(worker, (), export.statement.variant.name, experiment, subject.dataset.report)
    found = score(scored, labels, trained=stated.trained, reference=None)
    common, mine, theirs = np.intersect1d(found.positions, stated.positions, return_indices=True)
    top1, before = np.array(found.top1)[mine], np.array(stated.top1)[theirs]
    truth = labels[common] if stated.trained else before
    compared = compare_paired(top1 == truth, before == truth)
    changed = int((top1 != before).sum())
    margin_pp = export.statement.run.rules.margin_pp
    differs = compared.verdict != "tie" and abs(compared.diff_pp) > margin_pp
    reason = f"{changed} of {len(common)} images get another class here" if changed else ""
    return Finding(
        _quality_name(export),
        _stated_quality(export),
        f"{np.mean(top1 == truth):.2%}",
        "does not hold" if differs else "holds",
        reason,
    )


def _quality_name(export: OpenedExport) -> str:
    return "top-1" if _trained(export.statement.measurement.predictions) else "the same classes"


def _trained(predictions: Predictions | None) -> bool:
    return predictions is None or predictions.trained


def _stated_quality(export: OpenedExport) -> str:
    accuracy = export.statement.variant.accuracy
    if accuracy is not None:
        return f"{accuracy.top1:.2%}"
    return "100.00%" if export.statement.measurement.predictions else "not scored"


def _repeat_latency(
    export: OpenedExport, experiment: Experiment, here: Environment, max_slowdown: float
) -> Finding:
    """Time the files in rounds of fresh processes, beside a twin of themselves."""
    batch = export.statement.run.ranked_batch
    name = f"median latency at batch {batch}, ms"
    stated = export.statement.variant.latency.get(str(batch))
    if stated is None or stated.p50_s is None:
        return Finding(name, "not timed", "", "not repeated", "nothing was timed")
    # What it predicts decides nothing here, and may be of other images than those that are timed.
    measurement = dataclasses.replace(export.statement.measurement, environment=here.digest, predictions=None)
    contender = Contender(export.artifact, export.runtime, measurement)
    study = StudyFile(experiment.run.study)
    Comparison(contender, (), "verify", experiment, study).run_all({batch: ()})
    timings = collect_timings(study.rounds(here.digest, batch), contender.digest, ())
    found = latency_of(timings, contender.digest, None, settled=False)
    assert found.p50_s is not None
    best = found.p50_ci_s.low if found.p50_ci_s else found.p50_s
    worst = stated.p50_ci_s.high if stated.p50_ci_s else stated.p50_s
    noisy = any(
        check.too_noisy
        for check in check_twins(
            timings, export.statement.variant.model, batch, study.timing_ends(here.digest)
        )
    )
    return Finding(
        name,
        _with_interval(stated.p50_s, stated.p50_ci_s),
        _with_interval(found.p50_s, found.p50_ci_s),
        "does not hold" if best > worst * (1 + max_slowdown) else "holds",
        "the machine is too noisy to time on: the same files, opened twice, differ" if noisy else "",
    )


def _with_interval(point_s: float, interval: Interval | None) -> str:
    text = format_ms(point_s)
    return text if interval is None else f"{text} [{format_ms(interval.low)}, {format_ms(interval.high)}]"
