"""Markdown: the Pareto table, the picks, what to distrust, what failed, and the remaining figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quant_explorer.analysis.results import Pick, Results, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.core.units import format_mb, list_some, show_controls
from quant_explorer.report.answer import describe_answer
from quant_explorer.report.columns import Table, detail_table, display_names, in_reading_order, pareto_table

# Of those that dominate a variant; full_results.json has them all.
_NAMED = 3
LEGEND = (
    "Figures are `point [95 % interval]`. size_kb: all files a deployment needs, in 1,000 bytes; size_ratio: "
    "to the baseline's. p50_lat_ms: median of the rounds' median calls, at the baseline's level where not "
    "all were timed in the same rounds. latency_speedup: baseline over variant, paired within rounds; "
    "speedup_same_runtime: the same against FP32 in the variant's own runtime, which is what the lower "
    "precision or the pruning gives. "
    "top1_acc in per cent; acc_diff_pp: paired difference to the baseline in percentage points, a tie when "
    "its interval holds 0. margin: `within` when that interval's bad end loses no more than the margin, "
    "`worse` when its good end loses more, otherwise `not shown`, with the number of images more that would "
    "settle it. mem_peak_mb: peak resident memory above that of the empty runtime. "
    "pareto_optimal: on the frontier of size, latency and accuracy, with the share of joint resamplings in "
    "which it is."
)


def render_pareto(results: Results) -> str:
    """Return `pareto.md`: every model and every environment of a run, each environment by itself."""
    return _render(results, "Pareto report")


def render_multi_pareto(results: Results) -> str:
    """Return `multi_pareto.md`: the same for several models, with the frontier within each model."""
    return _render(results, "Pareto report per model")


def markdown_table(table: Table) -> str:
    """Return a table as Markdown; bars and line breaks in cells are escaped."""
    aligned = ["---:" if numeric else ":---" for numeric in table.numeric]
    rows = [table.headings, tuple(aligned), *(tuple(escape(cell) for cell in row) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def escape(text: str) -> str:
    """Make text safe for one line of Markdown, in a table or in a list."""
    return show_controls(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")


def _render(results: Results, title: str) -> str:
    blocks = [f"# {title}"]
    if not results.others:
        blocks += _environment(results, "##")
    for measured_in in (results, *results.others) if results.others else ():
        blocks.append(f"## Environment {escape(measured_in.environment.digest)}")
        blocks += _environment(measured_in, "###")
    return "\n\n".join(blocks) + "\n"


def _environment(results: Results, level: str) -> Iterator[str]:
    yield _setting(results)
    for model in results.models:
        yield f"{level} {escape(model)}"
        yield escape(describe_answer(results, model))
        yield from _preprocessing(results, model)
        table = pareto_table(results, model)
        yield markdown_table(table) if table.rows else "No variant was measured."
        yield from _groups(results, model)
        yield from _dominance(in_reading_order(results.of_model(model), results.run.ranked_batch))
        yield from _picks(results, model)
    yield LEGEND
    yield f"{level} What to distrust on {escape(results.environment.cpu)}"
    sentences = results.distrust or ("Nothing was found that speaks against these figures.",)
    yield "\n".join(f"- {escape(sentence)}" for sentence in sentences)
    yield from _failures(results, level)
    yield f"{level} More figures"
    for model in results.models:
        table = detail_table(results, model)
        if table.rows:
            yield f"{escape(model)}:"
            yield markdown_table(table)
    yield from _notes(results, level)


def _setting(results: Results) -> str:
    run, machine = results.run.settings, results.environment
    facts = [
        f"- Data: {run.data}; seed {run.seed}" + (f"; quantized engine {run.engine}" if run.engine else ""),
        f"- Machine: {machine.cpu} (this CPU, in notes and reasons), {machine.cores} cores, "
        f"{format_mb(machine.memory_bytes)} MB",
        f"- Threads: {machine.threads}; system: {machine.os}",
        f"- Versions: Python {machine.python}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(machine.versions.items())),
    ]
    return "\n".join(escape(fact) for fact in facts)


def _preprocessing(results: Results, model: str) -> Iterator[str]:
    for text in dict.fromkeys(variant.preprocessing for variant in results.of_model(model)):
        if text:
            yield f"Pre-processing: {escape(text)}."


def _groups(results: Results, model: str) -> Iterator[str]:
    lines = [f"- {sentence}" for sentence in describe_groups(results, model)]
    if lines:
        yield "The frontier, up to what the measurements separate:"
        yield "\n".join(escape(line) for line in lines)


def describe_groups(results: Results, model: str) -> tuple[str, ...]:
    """Return a sentence for each group of several on the frontier, with the names that the table uses."""
    measured = [variant for variant in results.of_model(model) if variant.status is Status.OK]
    names = display_names(measured)
    groups: dict[str, list[str]] = {}
    for variant in in_reading_order(measured, results.run.ranked_batch) if measured else ():
        if variant.frontier.group:
            members = groups.setdefault(variant.frontier.group, [])
            members += [names[variant.name]] if variant.name != variant.frontier.group else []
    return tuple(
        f"{names[representative]} stands for {', '.join(members)} too: none of which is shown to be smaller, "
        "faster or more accurate"
        for representative, members in groups.items()
        if members
    )


def _dominance(variants: Sequence[VariantResult]) -> Iterator[str]:
    names = display_names([variant for variant in variants if variant.status is Status.OK])
    lines = []
    for variant in variants:
        better = [other.name for other in variants if other.name in variant.frontier.dominated_by]
        if better:
            named = list_some((names[name] for name in better), _NAMED)
            lines.append(f"- {names[variant.name]} is dominated by {named}")
    if lines:
        yield "\n".join(escape(line) for line in lines)


def _picks(results: Results, model: str) -> Iterator[str]:
    lines = [f"- {sentence}" for sentence in describe_picks(results, model)]
    if lines:
        yield "Picks, on the frontier:"
        yield "\n".join(escape(line) for line in lines)


def describe_picks(results: Results, model: str) -> tuple[str, ...]:
    """Return the picks of a model as sentences, with the names that its table uses."""
    variants = [variant for variant in results.of_model(model) if variant.status is Status.OK]
    names = display_names(variants)
    trained = not any(variant.agreement for variant in variants)
    return tuple(describe_pick(pick, names, trained=trained) for pick in results.picks if pick.model == model)


def describe_pick(pick: Pick, names: dict[str, str], *, trained: bool) -> str:
    """Return a pick as a sentence; `names` maps variants to what the tables call them.

    A model that is not `trained` has no accuracy: its most accurate variant is the one closest to FP32.
    """
    kind = pick.kind if trained or pick.kind != "most accurate" else "closest to FP32"
    called = [names[name] for name in pick.names]
    if len(called) == 1:
        return f"{kind}: {called[0]}"
    return f"{kind}: a tie of {', '.join(called[:-1])} and {called[-1]}"


def _failures(results: Results, level: str) -> Iterator[str]:
    failed = [variant for variant in results.variants if variant.status is not Status.OK]
    if failed:
        rows = tuple(
            (variant.name, variant.model, str(variant.status), variant.reason or "no reason was recorded")
            for variant in failed
        )
        yield f"{level} Failed or unsupported"
        yield markdown_table(Table("", ("variant", "model", "status", "reason"), (False,) * 4, rows))


def _notes(results: Results, level: str) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for variant in results.variants:
        for note in variant.notes:
            names.setdefault(note, []).append(
                variant.name if len(results.models) == 1 else f"{variant.name} ({variant.model})"
            )
    if names:
        yield f"{level} Notes"
        yield "\n".join(
            escape(f"- {note.rstrip('.')}: {', '.join(variants)}") for note, variants in names.items()
        )
