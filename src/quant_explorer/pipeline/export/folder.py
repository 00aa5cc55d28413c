"""Artifact of a run -> export: the files copied, what is said of them beside them, and hashes of all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from quant_explorer.core.artifact import MANIFEST, Artifact, atomic_folder
from quant_explorer.core.contracts import Deployable, Deployment
from quant_explorer.core.errors import SettingsError, StorageError, StudyError, UnsupportedError, explain
from quant_explorer.core.export import MODEL_FOLDER, write_sums
from quant_explorer.core.measurement import Measurement
from quant_explorer.datasets import SOURCES
from quant_explorer.datasets.source import PictureSource
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.runtimes import RUNTIMES


def find_artifact(run: RunFolder, measurement: Measurement) -> Artifact:
    """Return the files of a variant as they were measured.

    Raises StudyError when they are missing, damaged, or those of another build.
    """
    variant = measurement.variant
    folder = run.artifacts / variant.digest
    if not (folder / MANIFEST).exists():
        raise StudyError(
            f"{folder}: the files of {variant.name} are not there; the command that measured them builds "
            "them again"
        )
    artifact = Artifact.load(folder)
    artifact.verify()
    if artifact.files != measurement.files:
        raise StudyError(
            f"{folder}: these are not the files that were measured as {variant.name}; measure them again"
        )
    return artifact


def find_deployment(name: str) -> Deployment:
    """Return how files of a runtime run without this package; raises UnsupportedError where it is unknown."""
    runtime = RUNTIMES[name]()
    if isinstance(runtime, Deployable):
        return runtime.deployment
    raise UnsupportedError(
        f"runtime {name} does not say how its files run without this package (`deployment` of its class), so "
        "that its variants cannot be exported"
    )


def is_decoded_whole(data: str) -> bool:
    """Say whether the images of a data set are decoded to the size that a model takes (a picture source)."""
    return isinstance(SOURCES[data.partition(":")[0]], PictureSource)


def write_export(
    folder: Path,
    artifact: Artifact,
    files: Mapping[str, bytes],
    check: Callable[[Path], object] | None = None,
) -> None:
    """Write an export to `folder`, which must not exist or be empty; it appears whole or not at all.

    `check` is called with the finished folder before it gets its name. Raises SettingsError for a folder that
    holds something, StorageError when it cannot be written.
    """
    folder = folder.resolve()
    try:
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(
                f"--to {folder}: there is something in it. Allowed: a folder that is new or empty."
            )
        with atomic_folder(folder) as temporary:
            shutil.copytree(artifact.folder, temporary / MODEL_FOLDER)
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            write_sums(temporary)
            if check is not None:
                check(temporary)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror or explain(error)})") from error
