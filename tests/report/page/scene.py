"""Pages of replayed studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import Results
from quant_explorer.core.measurement import ReportSplit
from quant_explorer.core.study import StudyFile
from quant_explorer.report.page.render import render_page
from quant_explorer.report.page.sheet import make_sheets
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BROKEN, ORDINARY, RUN

# Two runtimes, two groups that share the baseline alone, ties, and what is missing here and there.
VARIED = (
    *ORDINARY,
    Played("fp32_baseline", runtime="onnxruntime", slowness=0.5, wrong=40, size_bytes=1_000_000),
    Played(
        "static_int8", runtime="onnxruntime", slowness=0.251, wrong=44, size_bytes=251_000, group="second"
    ),
    Played(
        "bf16",
        runtime="onnxruntime",
        slowness=0.41,
        wrong=39,
        search_wrong=9,
        size_bytes=500_000,
        group="second",
    ),
    Played("fp16", runtime="onnxruntime", slowness=0.9, wrong=41, memory_bytes=None, group="second"),
    Played(
        "qat_int8",
        runtime="openvino",
        slowness=0.26,
        wrong=35,
        search_wrong=20,
        size_bytes=250_000,
        memory_bytes=9_000_000,
    ),
    Played("odd", runtime="openvino", latency=False, wrong=100),
    BROKEN,
)


def varied(folder: Path, scene: Scene | None = None) -> StudyFile:
    return play(folder / "study.jsonl", VARIED, scene)


def results_of(study: StudyFile) -> Results:
    return summarize(study, RUN, draws=50)


def write(folder: Path, study: StudyFile) -> Path:
    """Write the page of a study and return where it is."""
    results = results_of(study)
    path = folder / "index.html"
    path.write_bytes(render_page(results, make_sheets(study, results)))
    return path


def with_classes(study: StudyFile, names: Sequence[str]) -> StudyFile:
    """Give the classes of the report split other names."""
    records = [
        replace(record, classes=tuple(names)) if isinstance(record, ReportSplit) else record
        for record in study.records
    ]
    return StudyFile(study.path, records)
