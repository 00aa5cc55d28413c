"""For the tests of this room: what is said of a variant that was never measured, and real files exported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from quant_explorer.analysis.rank import gather_candidates
from quant_explorer.analysis.results import RunInfo
from quant_explorer.analysis.statement import Statement, state
from quant_explorer.core.artifact import Artifact, Manifest, list_files, write_manifest
from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.host.packages import package_versions
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import ParameterValue, Provenance, Recipe
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.pipeline.export.folder import find_deployment, write_export
from quant_explorer.report.export.render import render_export
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.replay import Played, environment, play
from quant_explorer.testing.toys import TOY_CLASSES, TOY_SHAPE

SPEC = InputSpec(TOY_SHAPE, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), resize=20, interpolation="bicubic")
RUN = RunInfo(Settings(data="imagefolder:images"), MeasurementProtocol(batch_sizes=(1, 8)))


def toy_manifest(
    runtime: str,
    spec: InputSpec = SPEC,
    *,
    classes: tuple[str, ...] = TOY_CLASSES,
    options: tuple[tuple[str, ParameterValue], ...] = (),
) -> Manifest:
    """Return the manifest of an artifact that has no files."""
    versions = tuple(RUNTIMES[runtime]().versions().items())
    return Manifest(
        schema_version=1,
        digest="toy",
        recipe=Recipe("static_int8_per_tensor", (), runtime),
        provenance=Provenance("toy", "weights", "data", versions=versions),
        spec=QuantSpec("int8", "static"),
        input=spec,
        classes=classes,
        files=(),
        options=options,
    )


def toy_statement(folder: Path, runtime: str = "eager", run: RunInfo = RUN) -> Statement:
    """Return the statement of a variant that was never measured, with the versions that are installed."""
    played = [
        Played(config, runtime=runtime, wrong=wrong, slowness=slowness)
        for config, wrong, slowness in (("fp32_baseline", 0, 1.0), ("static_int8_per_tensor", 2, 0.5))
    ]
    study = play(folder / "study.jsonl", played)
    machine = environment("env-a")
    here = replace(
        machine, versions={**package_versions("numpy", "torchvision"), **RUNTIMES[runtime]().versions()}
    )
    return state(gather_candidates(study, run), run, here, f"static_int8_per_tensor@{runtime}", None)


def export_files(
    files: Path, runtime: str, options: tuple[tuple[str, ParameterValue], ...], folder: Path
) -> Path:
    """Export a runtime's files, in a copy of their folder, and return the export."""
    artifact = folder / "artifact"
    shutil.copytree(files, artifact)
    manifest = replace(toy_manifest(runtime, options=options), files=list_files(artifact))
    write_manifest(artifact, manifest)
    content = render_export(
        toy_statement(folder, runtime), manifest, find_deployment(runtime), decoded_whole=True
    )
    write_export(folder / "export", Artifact(artifact, manifest), content)
    return folder / "export"
