"""Study file -> Results: pure and deterministic; each environment by itself, ranked within each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quant_explorer.analysis.accuracy import ranked_values
from quant_explorer.analysis.decide.answer import find_answer
from quant_explorer.analysis.decide.decision import Candidates
from quant_explorer.analysis.decide.groups import find_groups
from quant_explorer.analysis.decide.picks import pick
from quant_explorer.analysis.distrust import list_distrust
from quant_explorer.analysis.evidence import Evidence, gather
from quant_explorer.analysis.latency import check_twins
from quant_explorer.analysis.place import RankedVariant, default_objectives, find_places
from quant_explorer.analysis.results import SCHEMA_VERSION, Answer, Place, Results, RunInfo, VariantResult
from quant_explorer.analysis.variant import describe_variant
from quant_explorer.core.errors import StudyError
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Measurement, Status
from quant_explorer.core.study import StudyFile
from quant_explorer.stats.frontier import Objective
from quant_explorer.stats.intervals import CONFIDENCE


def summarize(study: StudyFile, run: RunInfo, *, draws: int = 2000) -> Results:
    """Derive every figure of the report from what was recorded.

    Returns the results of the environment that was measured last on as many threads as the run asks for, with
    those of the `others`, the latest first: different environments are never ranked together.
    `draws` is how often rounds and images are resampled for the frontier probabilities. Raises StudyError for
    a study without measurements, and for one that measured in an environment it does not describe.
    """
    order = order_environments(study, run)
    first, *others = (
        _summarize_environment(study, environment, run, draws, (*order[:place], *order[place + 1 :]))
        for place, environment in enumerate(order)
    )
    return replace(first, others=tuple(others))


def order_environments(study: StudyFile, run: RunInfo) -> tuple[Environment, ...]:
    """Return where a study was measured, the environment that counts first; raises as `summarize` does."""
    measured = {record.environment for record in study.records if isinstance(record, Measurement)}
    if not measured:
        raise StudyError(f"{study.path}: no measurements; run a pipeline or bench on this run folder first")
    unknown = sorted(measured - set(study.environments))
    if unknown:
        raise StudyError(f"{study.path}: measurements of an unknown environment {unknown[0]!r}")
    latest_first = [visit for visit in reversed(study.visits) if visit.digest in measured]
    return tuple(sorted(latest_first, key=lambda visit: visit.threads != run.protocol.threads))


def gather_candidates(
    study: StudyFile, run: RunInfo, *, confidence: float = CONFIDENCE
) -> tuple[Candidates, ...]:
    """Derive the variants of each model in the first environment, without their places on a frontier.

    Raises StudyError as `summarize` does.
    """
    environment = order_environments(study, run)[0].digest
    return tuple(
        Candidates(_describe(evidence, run), evidence)
        for evidence in gather(study, environment, run.protocol.batch_sizes, confidence)
    )


def _describe(evidence: Evidence, run: RunInfo) -> tuple[VariantResult, ...]:
    return tuple(
        describe_variant(evidence, measurement, run.rules.margin_pp) for measurement in evidence.measurements
    )


def _summarize_environment(
    study: StudyFile,
    environment: Environment,
    run: RunInfo,
    draws: int,
    others: Sequence[Environment],
) -> Results:
    gathered = gather(study, environment.digest, run.protocol.batch_sizes)
    variants: list[VariantResult] = []
    answers: list[Answer] = []
    objectives: dict[Objective, None] = {}
    for evidence in gathered:
        axes = default_objectives(run.ranked_batch, trained=evidence.trained)
        objectives |= dict.fromkeys(axes)
        described = _describe(evidence, run)
        places = _rank(evidence, described, axes, run.ranked_batch, draws)
        placed = tuple(replace(variant, frontier=places[variant.digest]) for variant in described)
        groups = find_groups(placed, evidence, run.ranked_batch, run.rules)
        variants += [
            replace(variant, frontier=replace(variant.frontier, group=groups.get(variant.digest, "")))
            for variant in placed
        ]
        answer = find_answer(Candidates(placed, evidence), run)
        answers.append(replace(answer, baseline=evidence.baseline_name))
    aa = tuple(
        check
        for evidence in gathered
        for batch, timings in evidence.timings.items()
        if evidence.baseline
        for check in check_twins(timings, evidence.model, batch, evidence.ends)
    )
    picks = tuple(
        chosen
        for evidence in gathered
        for chosen in pick(
            [variant for variant in variants if variant.model == evidence.model], evidence, run.ranked_batch
        )
    )
    return Results(
        schema_version=SCHEMA_VERSION,
        run=run,
        environment=environment,
        objectives=tuple(objectives),
        variants=tuple(variants),
        aa=aa,
        picks=picks,
        distrust=list_distrust(variants, aa, run, environment, others, _notes(study, gathered)),
        answers=tuple(answers),
    )


def _notes(study: StudyFile, gathered: Sequence[Evidence]) -> tuple[str, ...]:
    """Return what is to be known of the comparison and of the images, before any figure."""
    digests = dict.fromkeys(
        measurement.split for evidence in gathered for measurement in evidence.measurements
    )
    splits = [study.splits[digest] for digest in digests if digest in study.splits]
    notes = dict.fromkeys(f"Data: {note}." for split in splits for note in split.notes)
    return (*(evidence.stand_in for evidence in gathered if evidence.stand_in), *notes)


def _rank(
    evidence: Evidence,
    variants: Sequence[VariantResult],
    objectives: Sequence[Objective],
    batch: int,
    draws: int,
) -> dict[str, Place]:
    places: dict[str, Place] = {}
    ranked: dict[str, RankedVariant] = {}
    for variant in variants:
        entry = enter(evidence, variant, batch)
        if isinstance(entry, str):
            places[variant.digest] = Place(reason=entry)
        else:
            ranked[variant.digest] = entry
    found = find_places(list(ranked.values()), objectives, draws)
    return places | dict(zip(ranked, found, strict=True))


def enter(evidence: Evidence, variant: VariantResult, batch: int) -> RankedVariant | str:
    """Return the variant with its figures on every axis, or why it cannot be ranked."""
    if variant.status is not Status.OK:
        return f"it {variant.status.explain(variant.reason)}"
    if evidence.baseline is None:
        return f"{evidence.no_baseline}, and variants compare through it"
    if variant.size.bytes is None:
        return f"no size: {variant.size.reasons['bytes']}"
    latency = variant.latency[str(batch)]
    if latency.p50_s is None:
        return f"no latency at batch {batch}: {latency.reasons['p50_s']}"
    hits, reference = evidence.hits.get(variant.digest), evidence.baseline_hits
    if hits is None or reference is None:
        return f"no accuracy: {variant.reasons.get('agreement', 'the baseline was not scored')}"
    right = ranked_values(hits, reference) if evidence.same_split(variant.digest) else None
    if right is None:
        return "no comparable accuracy: it was scored on other images than the baseline"
    medians = evidence.timings[batch].levelled(variant.digest)
    return RankedVariant(variant.name, variant.size.bytes, latency.p50_s, medians, right)
