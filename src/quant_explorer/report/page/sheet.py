"""Results and their evidence become sheets of the page, one a model of one environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from quant_explorer.analysis.decide.search_split import examine_search
from quant_explorer.analysis.evidence import Evidence, gather
from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.difference import facts_of_environment
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Measurement, Status
from quant_explorer.core.settings.declaration import declared_of
from quant_explorer.core.study import StudyFile
from quant_explorer.core.units import format_count
from quant_explorer.report.answer import describe_answer, export_answer
from quant_explorer.report.columns import in_reading_order
from quant_explorer.report.markdown import describe_picks
from quant_explorer.report.page.content import FailedVariant, MemoryLevels, Row, Sheet
from quant_explorer.report.page.figures import find_axes, find_figures, search_figure
from quant_explorer.report.page.pairs import encode_pairs
from quant_explorer.report.page.per_class import change_of, choose_classes, names_of_classes
from quant_explorer.report.page.rounds import encode_rounds, median_ends, spread_of_calls


def make_sheets(study: StudyFile, results: Results, prefix: str = "") -> tuple[Sheet, ...]:
    """Return the sheets of a study's results, a model each, those of other environments after the first's.

    `prefix` stands before each title, for a page that holds several studies.
    """
    everything = (results, *results.others)
    sheets: list[Sheet] = []
    for some in everything:
        gathered = gather(study, some.environment.digest, some.run.protocol.batch_sizes)
        for evidence in gathered:
            where = (_name_environment(some.environment, everything),) if results.others else ()
            title = ", ".join(filter(None, (prefix, evidence.model, *where)))
            sheets.append(_make_sheet(some, evidence, title, study.path.parent))
    return tuple(sheets)


def _name_environment(environment: Environment, everything: Sequence[Results]) -> str:
    """Name an environment by its threads where the study's environments differ in nothing else."""
    if all(environment.is_but_for_threads(some.environment) for some in everything):
        return format_count(environment.threads, "thread")
    return f"environment {environment.digest[:8]}"


def _make_sheet(results: Results, evidence: Evidence, title: str, run_folder: Path) -> Sheet:
    run, batches = results.run, tuple(sorted(set(results.run.protocol.batch_sizes)))
    variants = results.of_model(evidence.model)
    sound = [variant for variant in variants if variant.status is Status.OK]
    measured = in_reading_order(sound, run.ranked_batch) if sound else ()
    classes = choose_classes(measured)
    names = names_of_classes(measured)
    measurements = {some.variant.digest: some for some in evidence.measurements}
    search = examine_search(evidence)
    rows = tuple(
        replace(
            _make_row(variant, evidence, measurements[variant.digest], batches, classes),
            search=search_figure(search, variant.digest),
        )
        for variant in measured
    )
    axes = find_axes(measured, batches, trained=evidence.trained)
    used = {key for row in rows for key in row.figures}
    timed = [batch for batch in batches if evidence.baseline and evidence.timings[batch].rounds]
    most = max((len(evidence.timings[batch].rounds) for batch in timed), default=0)
    return Sheet(
        title=title,
        model=evidence.model,
        answer=describe_answer(results, evidence.model),
        certainty=tuple(_certainty(results, evidence.model)),
        picks=describe_picks(results, evidence.model),
        distrust=results.distrust,
        axes=tuple(axis for axis in axes if axis.key in used),
        ranked=("size", f"p50:{run.ranked_batch}", "accuracy"),
        batches=batches,
        rows=rows,
        failures=tuple(
            FailedVariant(variant.name, variant.status.predicate, variant.reason or "no reason was recorded")
            for variant in variants
            if variant.status is not Status.OK
        ),
        classes=tuple(names[index] for index in classes),
        all_classes=len(names),
        rounds=tuple(
            encode_rounds(evidence.timings[batch], batch, [variant.digest for variant in measured])
            for batch in timed
            if measured
        ),
        ends=median_ends(most),
        margin_pp=run.rules.margin_pp,
        epsilon_latency=run.rules.epsilon_latency,
        epsilon_size=run.rules.epsilon_size,
        conditions=tuple(facts_of_environment(results.environment).items()),
        settings=tuple(_settings(results)),
        pairs=encode_pairs(evidence, [variant.digest for variant in measured]) if measured else None,
        search_least_pp=None if search.missing else search.least_pp,
        export=export_answer(results, evidence.model, run_folder) or "",
    )


def _make_row(
    variant: VariantResult,
    evidence: Evidence,
    measurement: Measurement,
    batches: Sequence[int],
    classes: Sequence[int],
) -> Row:
    figures, missing = find_figures(variant, evidence, batches)
    macs = variant.executed.macs or {}
    total = sum(macs.values())
    accuracy = variant.accuracy
    return Row(
        number=evidence.measurements.index(measurement),
        name=variant.name,
        runtime=variant.runtime,
        steps=variant.steps,
        figures=figures,
        missing=missing,
        on_frontier=variant.frontier.on_frontier,
        probability=variant.frontier.probability,
        dominated_by=tuple(
            number
            for number, some in enumerate(evidence.measurements)
            if some.variant.name in variant.frontier.dominated_by
        ),
        group=variant.frontier.group,
        unranked=variant.frontier.reason or "",
        verdict=(accuracy.verdict or "") if accuracy else "",
        classes=tuple(change_of(accuracy.per_class[index]) for index in classes) if accuracy else (),
        memory=tuple(
            MemoryLevels(
                levels.batch_size,
                levels.floor_bytes / 1e6,
                levels.loaded_bytes / 1e6,
                levels.peak_bytes / 1e6,
            )
            for levels in measurement.memory
        ),
        spread={
            str(batch): spread
            for batch in batches
            if evidence.baseline
            and (spread := spread_of_calls(evidence.timings[batch].calls_s(variant.digest)))
        },
        executed={precision: count / total for precision, count in macs.items()} if total else {},
        notes=variant.notes,
    )


def _certainty(results: Results, model: str) -> Iterator[str]:
    """Say how sure the answer is: its place, what the machine resolves, how many images it rests on."""
    run = results.run
    answer = results.answer_of(model)
    chosen = next(
        (
            variant
            for variant in results.of_model(model)
            if answer and answer.names and variant.name == answer.names[0]
        ),
        None,
    )
    if chosen is not None and chosen.frontier.probability is not None:
        yield (
            f"{chosen.name} is on the frontier of size, latency and accuracy in "
            f"{chosen.frontier.probability:.0%} of joint resamplings of rounds and images."
        )
    if chosen is not None and chosen.scored_images:
        yield f"Its accuracy was found on {format_count(chosen.scored_images, 'image')}."
    resolutions = [
        check.resolution
        for check in results.aa
        if (check.model, check.batch_size) == (model, run.ranked_batch) and check.resolution is not None
    ]
    if resolutions:
        yield (
            f"Latencies at batch {run.ranked_batch} that differ by less than {max(resolutions):.1%} are not "
            "separated here: that is the half width of the interval for the same files, opened twice."
        )


def _settings(results: Results) -> Iterator[tuple[str, str]]:
    """Return what was asked for, as options of the command line, with what the figures come from."""
    for group in (results.run.settings, results.run.protocol, results.run.rules):
        for declared in declared_of(group):
            yield declared.option, declared.default_text
    yield "digest of the data", results.run.data_digest or "not recorded"
    yield "environment", results.environment.digest
    yield "figures derived by", f"quant-explorer {results.run.version or '(not recorded)'}"
