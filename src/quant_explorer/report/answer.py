"""The answer in words: what to ship, how much of the speed-up is whose, and what else comes to the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from quant_explorer.analysis.results import Accuracy, Agreement, Answer, Results, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.core.recipe import BASELINE, BASELINE_CONFIG, BASELINE_RUNTIME
from quant_explorer.core.units import format_percent
from quant_explorer.report.columns import signed, with_interval
from quant_explorer.report.decision import describe_split, describe_ties
from quant_explorer.stats.intervals import Interval

_PRECISIONS = {"int8": "INT8", "bf16": "BF16", "fp16": "FP16"}


def describe_answer(results: Results, model: str) -> str:
    """Return what to ship of a model, why where it is not a compressed variant, and which images decided."""
    answer = results.answer_of(model)
    if answer is None:
        return "These results are of a version that gave no answer; `quant-explorer report` derives it."
    return _describe_outcome(results, answer) + describe_split(answer.judged_on)


def _describe_outcome(results: Results, answer: Answer) -> str:
    if not answer.names:
        return f"Nothing to ship: {answer.reason}."
    variants = {variant.name: variant for variant in results.of_model(answer.model)}
    chosen = variants[answer.names[0]]
    if chosen.name == answer.baseline:
        return f"Ship {chosen.name}, your FP32 as it is: {answer.reason}.{describe_ties(answer.names[1:])}"
    figures = describe_figures(results, chosen)
    reason = f" It is FP32: {answer.reason}." if answer.reason else ""
    return f"Ship {answer.names[0]}: {figures}.{reason}{describe_ties(answer.names[1:])}"


def export_answer(results: Results, model: str, run: Path) -> str | None:
    """Return the command that exports the answer for a model from the run folder; None without an answer."""
    answer = results.answer_of(model)
    if answer is None or not answer.names:
        return None
    return export_command(answer.names[0], run, model if len(results.models) > 1 else None)


def export_command(name: str, run: Path, model: str | None = None) -> str:
    """Return the command that exports a variant; `model` is named where the run has several."""
    words = ["quant-explorer", "export", name, "--run-dir", str(run), "--to", f"export/{name}"]
    return shlex.join(words if model is None else [*words, "--model", model])


def describe_figures(results: Results, variant: VariantResult) -> str:
    """Return speed-up, size and accuracy of a variant against the FP32 baseline, without a full stop."""
    return "; ".join((*_speed(results, variant), *_size(variant), _quality(results, variant)))


def compression_of(variant: VariantResult) -> str:
    """Name what makes a variant smaller than FP32: "INT8", "pruning and FP16"; empty for FP32."""
    ran = {precision for precision, count in (variant.executed.macs or {}).items() if count}
    lowered = [
        name for precision, name in _PRECISIONS.items() if precision in ran or precision == variant.precision
    ]
    pruned = ["pruning"] if any(step.startswith("prune") for step in variant.steps) else []
    return " and ".join([*pruned, *lowered[:1]])


def _speed(results: Results, variant: VariantResult) -> Iterator[str]:
    batch = str(results.run.ranked_batch)
    latency = variant.latency[batch]
    if latency.speedup is None:
        yield f"speed-up unknown ({latency.reasons.get('speedup', 'not timed')})"
        return
    own = _baseline_runtime(results, variant.model)
    reference = "PyTorch" if own == BASELINE_RUNTIME else own
    text = f"{_times(latency.speedup, latency.speedup_ci)} times as fast as your FP32 in {reference}"
    fp32 = next(
        (
            reference.latency[batch]
            for reference in results.of_model(variant.model)
            if (reference.config, reference.runtime, reference.status)
            == (BASELINE_CONFIG, variant.runtime, Status.OK)
        ),
        None,
    )
    compression = compression_of(variant) if variant.runtime != own else ""
    if (
        compression
        and latency.speedup_same_runtime is not None
        and fp32 is not None
        and fp32.speedup is not None
    ):
        runtime = _times(fp32.speedup, fp32.speedup_ci)
        rest = _times(latency.speedup_same_runtime, latency.speedup_same_runtime_ci)
        text += f", of which {variant.runtime} {runtime} and {compression} {rest}"
    yield text


def _baseline_runtime(results: Results, model: str) -> str:
    answer = results.answer_of(model)
    return (answer.baseline if answer else BASELINE).partition("@")[2]


def _size(variant: VariantResult) -> Iterator[str]:
    if variant.size.ratio is not None:
        yield f"{variant.size.ratio:.2f} of its size"


def _quality(results: Results, variant: VariantResult) -> str:
    if variant.accuracy is not None:
        return _accuracy(variant.accuracy, results.run.rules.margin_pp)
    return _agreement(variant.agreement) if variant.agreement is not None else "not scored"


def _accuracy(accuracy: Accuracy, margin_pp: float) -> str:
    if accuracy.diff_pp is None or accuracy.non_inferiority is None:
        return "accuracy not compared"
    found = accuracy.non_inferiority
    verdicts = {
        "within the margin": f"accuracy within {margin_pp:g} pp",
        "worse": f"accuracy worse by more than {margin_pp:g} pp",
        "not shown": f"accuracy not shown to be within {margin_pp:g} pp",
    }
    more = f" ({found.more_images:,} images more would settle it)" if found.more_images else ""
    return f"{verdicts[found.verdict]}{more}, {with_interval(accuracy.diff_pp, accuracy.diff_ci_pp, signed)}"


def _agreement(agreement: Agreement) -> str:
    share = with_interval(agreement.top1_agreement, agreement.top1_agreement_ci, format_percent)
    return f"the class that FP32 gives for {share} % of the images"


def _times(ratio: float, interval: Interval | None) -> str:
    return with_interval(ratio, interval, "{:.2f}".format)
