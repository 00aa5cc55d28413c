"""Statement and manifest -> the files of an export that are not the artifact's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.analysis.results import Accuracy, Latency, VariantResult
from quant_explorer.analysis.statement import Statement
from quant_explorer.core.artifact import Manifest
from quant_explorer.core.contracts import Deployment
from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.data.preprocessing import describe_preprocessing
from quant_explorer.core.errors import StudyError
from quant_explorer.core.export import CARD, CLASSES, PREDICT, PREPROCESSING, REQUIREMENTS, STATEMENT
from quant_explorer.core.host.packages import installed_version
from quant_explorer.core.units import format_mb, format_ms, format_percent
from quant_explorer.report.columns import signed, with_interval
from quant_explorer.report.export.markdown import Trusted, code, escape

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
SHOWN_CLASSES = 20


@dataclass(frozen=True)
class Figure:
    """A line of the card's table."""

    name: str
    value: Trusted


def render_export(
    statement: Statement, manifest: Manifest, deployment: Deployment, *, decoded_whole: bool
) -> dict[str, bytes]:
    """Return the content of each file by name.

    `decoded_whole` says that the images were decoded to the size of the model's input, as those of a folder
    of images are, and made grey by Pillow then. Raises StudyError where a version was not recorded.
    """
    return {
        STATEMENT: statement.encode(),
        PREPROCESSING: _json(describe_input(manifest.input)),
        CLASSES: _json(list(manifest.classes)),
        REQUIREMENTS: list_requirements(statement, manifest, deployment).encode(),
        PREDICT: render_predict(statement, manifest, deployment, decoded_whole=decoded_whole).encode(),
        CARD: render_card(statement, manifest).encode(),
    }


def describe_input(spec: InputSpec) -> dict[str, object]:
    """Return pre-processing as data; `rule` says in words what the numbers mean."""
    channels, height, width = spec.shape
    match spec.resize:
        case None:
            resized = "scale the image until it just covers height x width"
        case (_, _):
            resized = "scale the image to the height and width of `resize`, whatever its ratio"
        case _:
            resized = "scale the image until its shorter side is `resize` pixels"
    return {
        "channels": channels,
        "colour_order": "grey" if channels == 1 else "RGB",
        "layout": "NCHW",
        "height": height,
        "width": width,
        "resize": spec.resize,
        "interpolation": spec.interpolation,
        "antialias": spec.antialias,
        "value_range": spec.value_range,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "rule": (
            f"{resized}, crop height x width in the centre (zeros where it is too small), then "
            "(pixel / 255 * value_range - mean) / std for each channel; an EXIF orientation is not applied"
        ),
    }


def list_requirements(statement: Statement, manifest: Manifest, deployment: Deployment) -> str:
    """Return requirements.txt: what `predict.py` imports, in the versions that the figures are of."""
    recorded = dict(manifest.provenance.versions) | statement.environment.versions
    # Of these the study knows no version: pixels are those of what is installed here.
    here = {"pillow": installed_version("pillow") or ""}
    packages = [*deployment.packages, "numpy", "pillow"]
    if not manifest.input.antialias:
        packages.append("torchvision")
    lines = []
    for package in dict.fromkeys(packages):
        version = recorded.get(package) or here.get(package, "")
        if version in ("", "none"):
            raise StudyError(f"the study says no version of {package}, which the export has to name")
        # Builds such as 2.9.0+cpu are not on every index; pip takes them for the public version.
        lines.append(f"{package}=={version.partition('+')[0]}\n")
    return "".join(lines)


def render_predict(
    statement: Statement, manifest: Manifest, deployment: Deployment, *, decoded_whole: bool
) -> str:
    """Return the program that runs the files; nothing in it is text of the user's."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    templates = {"predict": FOLDER / "predict.py.jinja", "runtime": deployment.template}
    environment = Environment(
        loader=FunctionLoader(lambda name: templates[name].read_text()),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["literal"] = json.dumps
    return environment.get_template("predict").render(
        threads=statement.environment.threads,
        options=dict(manifest.options),
        antialias=manifest.input.antialias,
        luma_by_numpy=not decoded_whole,
    )


def render_card(statement: Statement, manifest: Manifest) -> str:
    """Return the model card; every value is escaped, for names of classes and layers are the user's."""
    return (
        _cards()
        .get_template("card.md.jinja")
        .render(
            variant=statement.variant,
            run=statement.run,
            environment=statement.environment,
            measurement=statement.measurement,
            manifest=manifest,
            preprocessing=describe_preprocessing(manifest.input),
            precision=_describe_precision(statement.variant),
            figures=tuple(Figure(name, Trusted(value)) for name, value in _figures(statement)),
            limits=tuple(_limits(statement)),
            shown_classes=SHOWN_CLASSES,
        )
    )


def _cards() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=False,
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = code
    return environment


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _describe_precision(variant: VariantResult) -> str:
    macs = variant.executed.macs or {}
    total = sum(macs.values())
    ran = ", ".join(f"{count / total:.1%} in {name}" for name, count in macs.items()) if total else ""
    asked = variant.precision or "not recorded"
    return f"{asked}; of the multiply-accumulates ran {ran}" if ran else asked


def _figures(statement: Statement) -> Iterator[tuple[str, str]]:
    variant = statement.variant
    if variant.size.bytes is not None:
        ratio = f" ({variant.size.ratio:.3f} of FP32 in PyTorch)" if variant.size.ratio else ""
        yield "size", f"{variant.size.bytes:,} bytes{ratio}"
    if variant.accuracy is not None:
        yield from _accuracy(variant.accuracy, statement.run.rules.margin_pp)
    if variant.agreement is not None:
        agreement = variant.agreement
        share = with_interval(agreement.top1_agreement, agreement.top1_agreement_ci, format_percent)
        yield "predictions that are those of FP32, %", share
    for batch, latency in variant.latency.items():
        yield from _latency(latency, batch, variant.runtime)
    for batch, peak in (variant.memory.peak_bytes or {}).items():
        yield f"peak memory above the empty runtime's at batch {batch}, MB", format_mb(peak)


def _accuracy(accuracy: Accuracy, margin_pp: float) -> Iterator[tuple[str, str]]:
    yield "top-1, %", with_interval(accuracy.top1, accuracy.top1_ci, format_percent)
    if accuracy.diff_pp is not None:
        change = with_interval(accuracy.diff_pp, accuracy.diff_ci_pp, signed)
        yield "change of top-1 against FP32, pp", f"{change} ({accuracy.verdict})"
    if accuracy.non_inferiority is not None:
        yield f"held against a margin of {margin_pp:g} pp", accuracy.non_inferiority.verdict


def _latency(latency: Latency, batch: str, runtime: str) -> Iterator[tuple[str, str]]:
    if latency.p50_s is None:
        return
    p50 = with_interval(latency.p50_s, latency.p50_ci_s, format_ms)
    yield f"median latency at batch {batch}, ms", p50
    for name, ratio, interval in (
        ("FP32 in PyTorch", latency.speedup, latency.speedup_ci),
        (f"FP32 in {runtime}", latency.speedup_same_runtime, latency.speedup_same_runtime_ci),
    ):
        if ratio is not None:
            yield f"times as fast as {name} at batch {batch}", with_interval(ratio, interval, "{:.2f}".format)


def _limits(statement: Statement) -> Iterator[str]:
    variant = statement.variant
    accuracy = variant.accuracy
    if accuracy is None:
        yield "The model was not trained on this data or has no labels: there is no accuracy."
    elif accuracy.non_inferiority is None or accuracy.non_inferiority.verdict != "within the margin":
        yield f"Its accuracy is not shown to be within {statement.run.rules.margin_pp:g} pp of FP32."
    if not any(latency.p50_s for latency in variant.latency.values()):
        yield "It was not timed."
