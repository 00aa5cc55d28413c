"""The outputs of a sweep: the studies of its seeds and its plan become tables, plots and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from quant_explorer.analysis.decision import Candidates, Decision, decide
from quant_explorer.analysis.evidence import Evidence, gather
from quant_explorer.analysis.hardware.rows import HardwareRow, LayerRow, hardware_rows, layer_rows
from quant_explorer.analysis.place import Contender
from quant_explorer.analysis.rank import enter
from quant_explorer.analysis.results import Results
from quant_explorer.analysis.sweep.deployment import Deployment, describe_deployment
from quant_explorer.analysis.sweep.interaction import Interaction, find_interactions
from quant_explorer.analysis.sweep.rows import Machine, SweepRow, sweep_rows
from quant_explorer.analysis.sweep.seeds import SeedRow, summarize_seeds
from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.cost.roofline import Peaks, override_peaks
from quant_explorer.core.difference import describe_contrasts, facts_of_environment, find_differences
from quant_explorer.core.errors import StorageError, StudyError, explain
from quant_explorer.core.measurement import FloatModel, Status
from quant_explorer.core.settings.plan import Reproducibility, SweepPlan
from quant_explorer.core.study import Study
from quant_explorer.report.sweep.csv import encode_csv
from quant_explorer.report.sweep.plots import draw_sweep
from quant_explorer.stats.frontier import Objective, on_frontier


@dataclass(frozen=True)
class SweepError:
    """A variant that has no figures, and why."""

    seed: int
    config: str
    runtime: str
    status: str
    reason: str


@dataclass(frozen=True)
class SeedFindings:
    """Everything that was derived from one seed's study."""

    seed: int
    results: Results
    rows: tuple[SweepRow, ...]
    interactions: tuple[Interaction, ...]
    contenders: Mapping[str, Contender]
    float_models: Mapping[float, FloatModel]
    peaks: Peaks | None
    evidence: Evidence


@dataclass(frozen=True)
class SweepSummary:
    """What the sweep found, in short: `summary.json`."""

    model: str
    data: str
    seeds: tuple[int, ...]
    variants: int
    measured: int
    unsupported: int
    failed: int
    decisions: tuple[Decision, ...]
    deployments: tuple[Deployment, ...]
    frontier: tuple[str, ...]
    peaks: Peaks | None
    energy: str
    control: str
    distrust: tuple[str, ...]


def examine_seed(seed: int, study: Study, results: Results, plan: SweepPlan) -> SeedFindings:
    """Derive one seed's rows from its study and the results that were summarized of it."""
    environment, run = results.environment.digest, results.run
    (evidence,) = gather(study, environment, "fp32_baseline", run.protocol.batch_sizes)
    steps = {one.variant.digest: one.steps for one in evidence.measurements}
    known = {digest: study.float_model(evidence.model, some) for digest, some in steps.items()}
    float_models = {digest: found for digest, found in known.items() if found is not None}
    peaks = study.peaks(environment)
    if peaks is not None:
        given = dict.fromkeys(peaks.gmacs_per_s, plan.gmacs_per_s) if plan.gmacs_per_s else {}
        peaks = override_peaks(peaks, {name: value for name, value in given.items() if value}, plan.gb_per_s)
    machine = Machine(float_models, peaks, {one.variant.digest: one.energy for one in evidence.measurements})
    entered = {one.name: enter(evidence, one, run.ranked_batch) for one in results.variants}
    return SeedFindings(
        seed=seed,
        results=results,
        rows=sweep_rows(seed, results.variants, run.ranked_batch, run.largest_batch, machine, plan),
        interactions=find_interactions(seed, evidence, plan),
        contenders={name: one for name, one in entered.items() if isinstance(one, Contender)},
        float_models={
            cell.pruning: float_models[one.digest]
            for one in results.variants
            if one.digest in float_models and (cell := plan.cell(one.config)) is not None
        },
        peaks=peaks,
        evidence=evidence,
    )


def write_sweep(
    seeds: Sequence[SeedFindings],
    plan: SweepPlan,
    reproducibility: Reproducibility | None,
    folder: Path,
    *,
    draws: int = 2000,
) -> SweepSummary:
    """Write every output of a sweep to `folder` and return its summary; at least one seed is needed.

    `reproducibility` is of the measurement: None leaves the file of an earlier one as it is.
    Raises StorageError when a file cannot be written.
    """
    first = seeds[0]
    rows = [row for seed in seeds for row in seed.rows]
    over_seeds = summarize_seeds(rows, [seed.contenders for seed in seeds], first.results.objectives, draws)
    layers = layer_rows(first.float_models, first.peaks, plan)
    summary = summarize_sweep(seeds, plan)
    with_energy = _energy_frontier(rows)
    files = {
        "sweep_results.csv": encode_csv(SweepRow, rows),
        "sweep_results.json": _json(rows),
        "pareto_frontier_latency.csv": encode_csv(SweepRow, [row for row in rows if row.on_frontier]),
        "layerwise_breakdown.csv": encode_csv(LayerRow, layers),
        "precision_tradeoffs.csv": encode_csv(
            Interaction, [one for seed in seeds for one in seed.interactions]
        ),
        "hardware_summary.csv": encode_csv(
            HardwareRow, hardware_rows(first.results.environment, first.peaks)
        ),
        "sweep_errors.csv": encode_csv(SweepError, _errors(seeds)),
        "summary.json": _json(summary),
        "summary_multi_seed.json": _json(over_seeds),
        "summary_multi_seed.csv": encode_csv(SeedRow, over_seeds),
        **({"reproducibility.json": _json(reproducibility)} if reproducibility else {}),
        **({"pareto_frontier_energy.csv": encode_csv(SweepRow, with_energy)} if with_energy else {}),
        **draw_sweep(rows, layers, first.peaks),
    }
    for name, content in files.items():
        try:
            write_atomically(folder / name, content)
        except OSError as error:
            raise StorageError(
                f"{folder / name}: cannot be written ({error.strerror or explain(error)})"
            ) from error
    return summary


def decide_all(seeds: Sequence[SeedFindings], plan: SweepPlan) -> tuple[Decision, ...]:
    """Hold the variants of all seeds against each of the plan's budgets.

    Raises StudyError for seeds that were measured in different environments: they are not ranked together.
    """
    first = seeds[0]
    for other in seeds[1:]:
        there, here = other.results.environment, first.results.environment
        if there != here:
            found = find_differences(facts_of_environment(there), facts_of_environment(here))
            raise StudyError(
                f"seed {other.seed} was measured in another environment than seed {first.seed} "
                f"({describe_contrasts(found)}), and such figures are never ranked together; measure both "
                "here, or report each alone with --seeds"
            )
    candidates = [Candidates(seed.results.variants, seed.evidence) for seed in seeds]
    batch = first.results.run.ranked_batch
    return tuple(decide(candidates, budgets, batch=batch, rules=plan.rules) for budgets in plan.budgets)


def summarize_sweep(seeds: Sequence[SeedFindings], plan: SweepPlan) -> SweepSummary:
    """Hold the variants of all seeds against the budgets, and describe what each of them picks."""
    first = seeds[0]
    run = first.results.run
    decisions = decide_all(seeds, plan)
    chosen = dict.fromkeys(decision.chosen for decision in decisions if decision.chosen is not None)
    statuses = [row.status for seed in seeds for row in seed.rows]
    measured, unsupported = statuses.count(Status.OK), statuses.count(Status.UNSUPPORTED)
    timings = first.evidence.timings[run.ranked_batch]
    return SweepSummary(
        model=plan.model,
        data=run.settings.data,
        seeds=plan.seeds,
        variants=len(statuses),
        measured=measured,
        unsupported=unsupported,
        failed=len(statuses) - measured - unsupported,
        decisions=decisions,
        deployments=tuple(describe_deployment(first.results, name, timings) for name in chosen),
        frontier=tuple(one.name for one in first.results.variants if one.frontier.on_frontier),
        peaks=first.peaks,
        energy=_energy(first),
        control=_control(first),
        distrust=first.results.distrust,
    )


def _energy(seed: SeedFindings) -> str:
    """Say whether energy was measured, and why not."""
    reasons = dict.fromkeys(one.energy_reason for one in seed.evidence.measurements if one.energy_reason)
    if any(row.energy_j for row in seed.rows):
        return "measured by the counters of the CPU packages, which count all that runs on them"
    return f"not measured: {'; '.join(reasons) or 'nothing was measured'}"


def _control(seed: SeedFindings) -> str:
    """Say what fine-tuning alone does, since pruned models were fine-tuned."""
    for one in seed.results.variants:
        if one.config == "fp32_finetune" and one.accuracy and one.accuracy.diff_ci_pp:
            interval = one.accuracy.diff_ci_pp
            return (
                f"fine-tuning the unpruned model for as long changes top-1 by {one.accuracy.diff_pp:+.2f} pp "
                f"[{interval.low:+.2f}, {interval.high:+.2f}] ({one.accuracy.verdict}): that much of a "
                "pruned variant's accuracy is training"
            )
    return "nothing was fine-tuned"


def _energy_frontier(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Return the rows that nothing of the same seed beats in size, energy and top-1."""
    axes = (
        Objective("size_bytes", "minimize", ""),
        Objective("energy_j", "minimize", ""),
        Objective("top1", "maximize", ""),
    )
    kept: list[SweepRow] = []
    for seed in dict.fromkeys(row.seed for row in rows):
        complete = [
            row for row in rows if row.seed == seed and None not in (row.size_bytes, row.energy_j, row.top1)
        ]
        points = np.array([[row.size_bytes, row.energy_j, row.top1] for row in complete], np.float64)
        best = on_frontier(points.reshape(-1, len(axes)), axes)
        kept += [row for row, best_one in zip(complete, best, strict=True) if best_one]
    return kept


def _errors(seeds: Sequence[SeedFindings]) -> list[SweepError]:
    return [
        SweepError(
            seed.seed, one.config, one.runtime, one.status.value, one.reason or "no reason was recorded"
        )
        for seed in seeds
        for one in seed.results.variants
        if one.status is not Status.OK
    ]


def _json(content: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
