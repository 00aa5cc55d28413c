"""What to distrust: sentences derived from the figures, for the reader of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quant_explorer.analysis.latency import DISTURBING_SHARE
from quant_explorer.analysis.results import Latency, RunInfo, TwinCheck, VariantResult
from quant_explorer.core.difference import describe_contrasts, facts_of_environment, find_differences
from quant_explorer.core.host.architecture import HALF_PRECISIONS
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Status
from quant_explorer.core.recipe import BASELINE_CONFIG
from quant_explorer.core.units import format_count, list_some

FEW_ROUNDS = 10


def list_distrust(
    variants: Sequence[VariantResult],
    aa: Sequence[TwinCheck],
    run: RunInfo,
    environment: Environment,
    others: Sequence[Environment],
    notes: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the sentences, most damaging first; empty when nothing speaks against the figures.

    `environment` is the one that the figures are of, `others` are those that the study holds beside it;
    `notes` are what to know of the comparison and of the data's files, in sentences.
    """
    sources = (
        _chance(variants),
        notes,
        _environments(environment, others),
        _twins(aa),
        _failures(variants),
        _unranked(variants),
        _ends(aa),
        _wide(variants, aa, run.protocol.precision),
        _few_rounds(variants),
        _subsets(variants),
        _tails(variants),
        _memory(variants),
        _emulation(variants, environment),
        _promotion(variants),
    )
    return tuple(sentence for source in sources for sentence in source)


def label(variant: VariantResult) -> str:
    """Name a variant with its model, as sentences do."""
    return f"{variant.name} ({variant.model})"


def _environments(environment: Environment, others: Sequence[Environment]) -> Iterator[str]:
    here = facts_of_environment(environment)
    for other in others:
        # More threads on the same machine are what a sweep measures its choice on.
        if not other.is_but_for_threads(environment):
            found = find_differences(facts_of_environment(other), here)
            yield (
                f"The study holds figures of environment {other.digest} too, which have a table of their own "
                f"and do not compare with these ({environment.digest}): {describe_contrasts(found)}."
            )


def _chance(variants: Sequence[VariantResult]) -> Iterator[str]:
    """Say so where a float model knows nothing: a wrong order or normalization costs more than INT8 does."""
    known: set[str] = set()
    for variant in variants:
        accuracy = variant.accuracy
        if accuracy is None or variant.config != BASELINE_CONFIG or not accuracy.per_class:
            continue
        # The first of a model is its baseline.
        if variant.model in known:
            continue
        known.add(variant.model)
        classes = len(accuracy.per_class)
        if accuracy.top1_ci.low <= 1 / classes:
            yield (
                f"{label(variant)} gets {accuracy.top1:.1%} of "
                f"{format_count(accuracy.images, 'image')} right, which is not shown to be better than "
                f"guessing among {classes} classes. Likely causes: the order of the classes (--classes, "
                "--class-order), the normalization (--mean, --std, --value-range), the order of the "
                "colours, the wrong weights."
            )


def _twins(aa: Sequence[TwinCheck]) -> Iterator[str]:
    checked = [check for check in aa if check.separable is not None]
    for check in checked:
        if check.separable and check.ratio is not None and check.ratio_ci is not None:
            interval = f"{check.ratio:.3f} [{check.ratio_ci.low:.3f}, {check.ratio_ci.high:.3f}]"
            yield (
                f"{_name(check, aa)}: the machine was too noisy for this comparison. The baseline and its "
                f"A/A twin, the same files opened twice, came out different ({interval} over "
                f"{format_count(check.rounds, 'round')}), so latency differences of that order mean nothing."
            )
        elif check.too_noisy:
            yield (
                f"{_name(check, aa)}: the machine was too noisy for this comparison. Other work took over "
                f"{DISTURBING_SHARE:.0%} of the measuring cores in {check.disturbed_rounds} of "
                f"{format_count(check.rounds, 'round')}."
            )
    for check in aa:
        if check.separable is None:
            reason = check.reasons.get("ratio", "not timed")
            yield f"{_name(check, aa)}: there is no A/A control ({reason})."
    resolved = sorted(
        (check.resolution, _name(check, aa)) for check in checked if check.resolution is not None
    )
    if resolved:
        ends = dict.fromkeys((resolved[0], resolved[-1]))
        span = " to ".join(f"{_percent(resolution)} ({name})" for resolution, name in ends)
        yield (
            f"The machine resolves differences of {span}: the half width of the baseline's interval against "
            "its A/A twin, the same files opened twice. Smaller ones are not shown."
        )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def _name(check: TwinCheck, aa: Sequence[TwinCheck]) -> str:
    """Name a comparison by model and batch size, and by its group where there are several."""
    groups = {twin.group for twin in aa if (twin.model, twin.batch_size) == (check.model, check.batch_size)}
    group = f", group {check.group[:6]}" if len(groups) > 1 else ""
    return f"{check.model}, batch {check.batch_size}{group}"


def _failures(variants: Sequence[VariantResult]) -> Iterator[str]:
    failed: dict[str, list[str]] = {}
    for variant in variants:
        if variant.status is not Status.OK:
            failed.setdefault(variant.status.predicate, []).append(label(variant))
    if failed:
        kinds = "; ".join(
            f"{predicate.removeprefix('is ')}: {list_some(names)}" for predicate, names in failed.items()
        )
        yield f"Not everything was measured; {kinds}. The report has the reasons."


def _unranked(variants: Sequence[VariantResult]) -> Iterator[str]:
    for variant in variants:
        if variant.status is Status.OK and variant.frontier.reason:
            yield f"{label(variant)} is not ranked: {variant.frontier.reason}."


def _ends(aa: Sequence[TwinCheck]) -> Iterator[str]:
    why = {
        "time_limit": "stopped by the time limit",
        "rounds": "stopped at the allowed number of rounds",
    }
    ends: dict[str, list[str]] = {}
    for check in aa:
        if check.stopped_by != "precision":
            stopped = why.get(check.stopped_by or "", "did not run to an end")
            ends.setdefault(stopped, []).append(
                f"{_name(check, aa)} after {format_count(check.rounds, 'round')}"
            )
    for stopped, names in ends.items():
        yield f"Timing {stopped}: {list_some(names, separator='; ')}."


def _wide(variants: Sequence[VariantResult], aa: Sequence[TwinCheck], precision: float) -> Iterator[str]:
    for model, size in dict.fromkeys((check.model, check.batch_size) for check in aa):
        widths = {
            label(variant): _half_width(latency)
            for variant in variants
            if variant.model == model
            and (latency := variant.latency.get(str(size))) is not None
            and not latency.settled
            and _half_width(latency) > precision
        }
        if widths:
            widest_first = sorted(widths.items(), key=lambda item: -item[1])
            names = list_some(f"{name} ±{width:.1%}" for name, width in widest_first)
            yield f"{model}, batch {size}: speed-ups wider than the ±{precision * 100:g}% asked for: {names}."


def _half_width(latency: Latency) -> float:
    if latency.speedup is None or latency.speedup_ci is None:
        return 0.0
    return latency.speedup_ci.half_width / latency.speedup


def _few_rounds(variants: Sequence[VariantResult]) -> Iterator[str]:
    few = [
        f"{label(variant)} at batch {batch} ({latency.rounds}{', settled early' if latency.settled else ''})"
        for variant in variants
        for batch, latency in variant.latency.items()
        if 0 < latency.rounds < FEW_ROUNDS
    ]
    if few:
        yield f"Fewer than {FEW_ROUNDS} rounds, so the intervals are rough: {list_some(few)}."


def _subsets(variants: Sequence[VariantResult]) -> Iterator[str]:
    for variant in variants:
        images = variant.scored_images
        whole = max((other.scored_images for other in variants if other.model == variant.model), default=0)
        if 0 < images < whole:
            yield (
                f"{label(variant)} was too slow to be scored in full: its accuracy is of {images:,} of "
                f"{whole:,} images, compared with the baseline on those, and it is ranked by the baseline's "
                "accuracy plus that difference."
            )


def _tails(variants: Sequence[VariantResult]) -> Iterator[str]:
    for figure in ("p95_s", "p99_s"):
        missing: dict[str, int] = {}
        for variant in variants:
            for batch, latency in variant.latency.items():
                if latency.rounds and figure in latency.reasons:
                    missing[batch] = missing.get(batch, 0) + 1
        if missing:
            groups = (
                f"{format_count(count, 'variant')} at batch {batch}" for batch, count in missing.items()
            )
            counts = list_some(groups)
            yield f"{figure.removesuffix('_s')} is not given, for want of calls, for {counts}."


def _memory(variants: Sequence[VariantResult]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for variant in variants:
        if variant.status is Status.OK and "peak_bytes" in variant.memory.reasons:
            reasons.setdefault(variant.memory.reasons["peak_bytes"], []).append(label(variant))
    for reason, names in reasons.items():
        yield f"Peak memory is not available for {list_some(names)}: {reason}."


def _emulation(variants: Sequence[VariantResult], environment: Environment) -> Iterator[str]:
    for precision in filter(environment.emulates, HALF_PRECISIONS):
        names = [label(variant) for variant in variants if (variant.executed.macs or {}).get(precision)]
        if names:
            yield (
                f"{list_some(names)}: {environment.cpu} has no {precision} arithmetic: it converts to fp32 "
                "and back, and these latencies say nothing of a CPU that has it."
            )


def _promotion(variants: Sequence[VariantResult]) -> Iterator[str]:
    names: dict[tuple[str, str], list[str]] = {}
    for variant in variants:
        ran = [precision for precision, count in (variant.executed.macs or {}).items() if count]
        if variant.precision in HALF_PRECISIONS and ran and variant.precision not in ran:
            names.setdefault((variant.precision, " and ".join(ran)), []).append(label(variant))
    for (precision, ran_in), named in names.items():
        yield f"{list_some(named)}: asked for {precision}, computed in {ran_in}."
