"""The columns of the report's tables, defined once for Markdown and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.core.recipe import BASELINE
from quant_explorer.core.units import format_count, format_kb, format_mb, format_ms, format_percent
from quant_explorer.stats.intervals import Interval

MISSING = "n/a"


@dataclass(frozen=True)
class Column:
    """A heading and how a variant's cell reads; `numeric` columns are aligned right."""

    heading: str
    cell: Callable[[VariantResult], str]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Headings and rows of text; `numeric` says which columns are aligned right."""

    title: str
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


def pareto_table(results: Results, model: str, *, everything: bool = True) -> Table:
    """The main table of one model: the axes of the frontier, each figure with its interval.

    Without `everything` it holds the baseline, what is to be shipped, and a representative of each group of
    the frontier.
    """
    measured = _measured(results, model)
    batch = str(results.run.ranked_batch)
    trained = any(variant.accuracy for variant in measured) or not any(
        variant.agreement for variant in measured
    )
    counts = {variant.scored_images for variant in measured}
    columns = (
        _config_column(measured),
        Column("size_kb", _size),
        Column(
            "size_ratio",
            lambda variant: MISSING if variant.size.ratio is None else f"{variant.size.ratio:.3f}",
        ),
        Column(f"p50_lat_ms_b{batch}", partial(_p50, batch=batch)),
        Column("latency_speedup", partial(_speedup, batch=batch)),
        Column("speedup_same_runtime", partial(_same_runtime, batch=batch)),
        *(ACCURACY_COLUMNS if trained else AGREEMENT_COLUMNS),
        *((_margin_column(results),) if trained else ()),
        *((Column("images", lambda variant: f"{variant.scored_images:,}"),) if len(counts) > 1 else ()),
        Column("mem_peak_mb", partial(_memory, batch=batch)),
        Column("pareto_optimal", _optimal, numeric=False),
    )
    rows = measured if everything else [variant for variant in measured if is_choice(results, variant)]
    return _fill(f"Pareto table of {model}", columns, rows)


def is_choice(results: Results, variant: VariantResult) -> bool:
    """Whether a variant is the baseline, the answer, or stands for a group of the frontier.

    In a document of a version without groups, the whole frontier does.
    """
    answer = results.answer_of(variant.model)
    baseline = answer.baseline if answer else BASELINE
    group = variant.frontier.group
    represents = group == variant.name if group else bool(variant.frontier.on_frontier and answer is None)
    return variant.name == baseline or represents or bool(answer and variant.name in answer.names[:1])


def detail_table(results: Results, model: str) -> Table:
    """The second table of one model: the other batch sizes, the tail, what was executed, other metrics."""
    measured = _measured(results, model)
    ranked, largest = results.run.ranked_batch, results.run.largest_batch
    columns = [_config_column(measured)]
    for batch in (str(size) for size in sorted(set(results.run.protocol.batch_sizes)) if size != ranked):
        columns.append(Column(f"p50_lat_ms_b{batch}", partial(_p50, batch=batch)))
        columns.append(Column(f"latency_speedup_b{batch}", partial(_speedup, batch=batch)))
    columns += [
        Column(f"p95_lat_ms_b{ranked}", partial(_p95, batch=str(ranked))),
        Column("cold_start_ms", lambda variant: _optional(variant.cold_start_s, format_ms)),
    ]
    if largest != ranked:
        columns.append(Column(f"mem_peak_mb_b{largest}", partial(_memory, batch=str(largest))))
    columns.append(
        Column(
            "int8_mac_fraction",
            lambda variant: _optional(variant.executed.int8_mac_fraction, "{:.3f}".format),
        )
    )
    units = {name: figure.unit for variant in measured for name, figure in variant.metrics.items()}
    columns += [Column(f"{name}_{unit}", partial(_metric, name=name)) for name, unit in units.items()]
    return _fill(f"More figures of {model}", columns, measured)


def display_names(variants: Sequence[VariantResult]) -> dict[str, str]:
    """Map names to what tables and plots call them: the config alone where that is clear."""
    configs = [variant.config for variant in variants]
    clear = len(set(configs)) == len(configs) and len({variant.runtime for variant in variants}) <= 1
    return {variant.name: variant.config if clear else variant.name for variant in variants}


def with_interval(value: float, interval: Interval | None, form: Callable[[float], str]) -> str:
    """Format a figure with its interval: `0.231 [0.229, 0.234]`."""
    return form(value) if interval is None else f"{form(value)} [{form(interval.low)}, {form(interval.high)}]"


def in_reading_order(variants: Sequence[VariantResult], batch: int) -> tuple[VariantResult, ...]:
    """Sort as tables show variants: the first (the baseline), the frontier, the others; fastest first."""

    def place(variant: VariantResult) -> tuple[bool, bool, float]:
        latency = variant.latency.get(str(batch))
        p50_s = latency.p50_s if latency and latency.p50_s is not None else math.inf
        return variant is not variants[0], not variant.frontier.on_frontier, p50_s

    return tuple(sorted(variants, key=place))


def _measured(results: Results, model: str) -> tuple[VariantResult, ...]:
    measured = [variant for variant in results.of_model(model) if variant.status is Status.OK]
    return in_reading_order(measured, results.run.ranked_batch)


def _fill(title: str, columns: Sequence[Column], variants: Sequence[VariantResult]) -> Table:
    return Table(
        title,
        tuple(column.heading for column in columns),
        tuple(column.numeric for column in columns),
        tuple(tuple(column.cell(variant) for column in columns) for variant in variants),
    )


def _config_column(variants: Sequence[VariantResult]) -> Column:
    names = display_names(variants)
    return Column("config", lambda variant: names[variant.name], numeric=False)


def _optional(value: float | None, form: Callable[[float], str]) -> str:
    return MISSING if value is None else form(value)


def _size(variant: VariantResult) -> str:
    return _optional(variant.size.bytes, format_kb)


def _p50(variant: VariantResult, batch: str) -> str:
    latency = variant.latency.get(batch)
    if latency is None or latency.p50_s is None:
        return MISSING
    return with_interval(latency.p50_s, latency.p50_ci_s, format_ms)


def _p95(variant: VariantResult, batch: str) -> str:
    latency = variant.latency.get(batch)
    return MISSING if latency is None else _optional(latency.p95_s, format_ms)


def _speedup(variant: VariantResult, batch: str) -> str:
    latency = variant.latency.get(batch)
    if latency is None or latency.speedup is None:
        return MISSING
    return with_interval(latency.speedup, latency.speedup_ci, "{:.2f}".format)


def _same_runtime(variant: VariantResult, batch: str) -> str:
    latency = variant.latency.get(batch)
    if latency is None or latency.speedup_same_runtime is None:
        return MISSING
    return with_interval(latency.speedup_same_runtime, latency.speedup_same_runtime_ci, "{:.2f}".format)


def _memory(variant: VariantResult, batch: str) -> str:
    return _optional((variant.memory.peak_bytes or {}).get(batch), format_mb)


def _metric(variant: VariantResult, name: str) -> str:
    figure = variant.metrics.get(name)
    if figure is None or figure.value is None:
        return MISSING
    return with_interval(figure.value, figure.ci, "{:.3g}".format)


def _top1(variant: VariantResult) -> str:
    accuracy = variant.accuracy
    if accuracy is None:
        return MISSING
    return with_interval(accuracy.top1, accuracy.top1_ci, format_percent)


def _difference(variant: VariantResult) -> str:
    accuracy = variant.accuracy
    if accuracy is None or accuracy.diff_pp is None:
        return MISSING
    return f"{with_interval(accuracy.diff_pp, accuracy.diff_ci_pp, signed)} {accuracy.verdict}"


def _margin_column(results: Results) -> Column:
    return Column(f"margin_{results.run.rules.margin_pp:g}_pp", _margin, numeric=False)


def _margin(variant: VariantResult) -> str:
    found = variant.accuracy.non_inferiority if variant.accuracy else None
    if found is None:
        return MISSING
    if found.more_images:
        return f"not shown ({format_count(found.more_images, 'image')} more)"
    return "within" if found.verdict == "within the margin" else found.verdict


def signed(value: float) -> str:
    """Format a difference with its sign and two decimals, or with what it takes to be no zero."""
    if value == 0:
        return "0.00"
    text = f"{value:+.2f}"
    # "0.00" would say that an interval holds 0 when it does not.
    return text if float(text) else f"{value:+.1g}"


def _agreement(variant: VariantResult) -> str:
    if variant.agreement is None:
        return MISSING
    agreement = variant.agreement
    return with_interval(agreement.top1_agreement, agreement.top1_agreement_ci, format_percent)


def _sqnr(variant: VariantResult) -> str:
    return MISSING if variant.agreement is None else _optional(variant.agreement.sqnr_db, "{:.1f}".format)


def _optimal(variant: VariantResult) -> str:
    place = variant.frontier
    if place.on_frontier is None:
        return "not ranked"
    return f"{'yes' if place.on_frontier else 'no'} ({place.probability or 0.0:.2f})"


ACCURACY_COLUMNS = (Column("top1_acc", _top1), Column("acc_diff_pp", _difference))
AGREEMENT_COLUMNS = (Column("top1_agreement_with_fp32", _agreement), Column("sqnr_db", _sqnr))
