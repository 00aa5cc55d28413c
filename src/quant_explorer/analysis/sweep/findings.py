"""What one seed's study holds: its rows, its interactions, and what the seeds are joined by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quant_explorer.analysis.decide.search_split import examine_search
from quant_explorer.analysis.evidence import Evidence, gather
from quant_explorer.analysis.place import RankedVariant
from quant_explorer.analysis.rank import enter
from quant_explorer.analysis.results import Results
from quant_explorer.analysis.sweep.interaction import Interaction, find_interactions
from quant_explorer.analysis.sweep.rows import Machine, SweepRow, sweep_rows
from quant_explorer.core.cost.records import FloatModel
from quant_explorer.core.cost.roofline import Peaks, override_peaks
from quant_explorer.core.settings.plan import SweepPlan
from quant_explorer.core.study import StudyFile


@dataclass(frozen=True)
class SeedFindings:
    """Everything that was derived from one seed's study.

    `ranked` is keyed by the variant's name, `float_models` by the pruning level.
    """

    seed: int
    results: Results
    rows: tuple[SweepRow, ...]
    interactions: tuple[Interaction, ...]
    ranked: Mapping[str, RankedVariant]
    float_models: Mapping[float, FloatModel]
    peaks: Peaks | None
    evidence: Evidence


def examine_seed(seed: int, study: StudyFile, results: Results, plan: SweepPlan) -> SeedFindings:
    """Derive one seed's rows from its study and the results that were summarized of it."""
    run = results.run
    (evidence,) = gather(study, results.environment.digest, run.protocol.batch_sizes)
    steps = {measurement.variant.digest: measurement.steps for measurement in evidence.measurements}
    known = {digest: study.float_model(evidence.model, made_by) for digest, made_by in steps.items()}
    float_models = {digest: model for digest, model in known.items() if model is not None}
    peaks = _peaks(study, results, plan)
    energy = {digest: evidence.energy(digest) for digest in steps}
    entered = {variant.name: enter(evidence, variant, run.ranked_batch) for variant in results.variants}
    return SeedFindings(
        seed=seed,
        results=results,
        rows=sweep_rows(
            seed,
            results.variants,
            run.ranked_batch,
            run.largest_batch,
            Machine(float_models, peaks, energy),
            plan,
            examine_search(evidence),
        ),
        interactions=find_interactions(seed, evidence, plan),
        ranked={name: entry for name, entry in entered.items() if isinstance(entry, RankedVariant)},
        float_models={
            cell.pruning: float_models[variant.digest]
            for variant in results.variants
            if variant.digest in float_models and (cell := plan.cell(variant.config)) is not None
        },
        peaks=peaks,
        evidence=evidence,
    )


def _peaks(study: StudyFile, results: Results, plan: SweepPlan) -> Peaks | None:
    """Return the machine's peaks, with what the plan gives instead."""
    peaks = study.peaks(results.environment.digest)
    if peaks is None:
        return None
    given = dict.fromkeys(peaks.gmacs_per_s, plan.gmacs_per_s) if plan.gmacs_per_s else {}
    return override_peaks(peaks, {name: value for name, value in given.items() if value}, plan.gb_per_s)
