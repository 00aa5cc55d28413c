"""Whether `predict.py` of an export computes what a worker does, on a picture of odd size."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from quant_explorer.core.contracts import Batch
from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.errors import BuildError
from quant_explorer.core.export import PREDICT
from quant_explorer.core.progress import Progress, Silent
from quant_explorer.datasets import prepare
from quant_explorer.datasets.images.decoding import decode
from quant_explorer.pipeline.export.folder import is_decoded_whole
from quant_explorer.pipeline.export.opened import OpenedExport, noise

# The same kernels on the same pixels; a call may be compiled for its number of images.
TOLERANCE = 1e-4
_TIMEOUT_S = 600.0


def check_export(folder: Path, progress: Progress) -> None:
    """Run `predict.py` in a fresh process and compare its logits with a worker's, of the same picture.

    Raises BuildError when it fails or computes something else, WorkerError when the files do not open.
    """
    export = OpenedExport.load(folder)
    spec = export.artifact.manifest.input
    with TemporaryDirectory(prefix="quant-explorer-") as scratch, progress.task("check", None):
        picture = Path(scratch) / "picture.png"
        draw_picture(picture, spec)
        batch = prepare_file(
            picture, spec, decoded_whole=is_decoded_whole(export.statement.run.settings.data)
        )
        dataset = noise(spec, export.artifact.manifest.classes)
        experiment = export.experiment(dataset, export.statement.run.protocol, Path(scratch), progress)
        with experiment.open_worker(export.artifact, export.runtime) as worker:
            worker.open(batch)
            expected = worker.run(batch)[0]
        compare(run_predict(folder, picture), expected, folder / PREDICT)


def draw_picture(path: Path, spec: InputSpec) -> None:
    """Write a picture of noise, wider than it is high and of no size that the model takes."""
    from PIL import Image

    _, height, width = spec.shape
    pixels = np.random.default_rng(0).integers(0, 256, (height + 7, 2 * width + 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def prepare_file(path: Path, spec: InputSpec, *, decoded_whole: bool) -> Batch:
    """Return the picture in a file as it would be scored, float32 (1, channels, height, width).

    `decoded_whole` as in `is_decoded_whole`: others are decoded first and framed later.
    """
    from PIL import Image

    if decoded_whole:
        (pixels,) = decode([path], spec, Silent())
        return prepare(pixels, dataclasses.replace(spec, resize=None))
    with Image.open(path) as image:
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return prepare(pixels.reshape(1, *pixels.shape[:2], -1), spec)


def run_predict(folder: Path, picture: Path, python: str = sys.executable) -> Batch:
    """Return the logits (classes,) that `predict.py` prints; raises BuildError when it fails."""
    program = folder / PREDICT
    try:
        done = subprocess.run(
            [python, str(program), str(picture), "--logits"],
            cwd=picture.parent,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{program} did not end within {_TIMEOUT_S:g} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["without a word"]
        raise BuildError(f"{program} failed with exit code {done.returncode}: {lines[-1]}")
    return np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)


def compare(found: Batch, expected: Batch, program: Path) -> None:
    """Raise BuildError when logits differ by more than rounding."""
    if found.shape != expected.shape or not np.allclose(
        found, expected, rtol=0, atol=TOLERANCE * float(np.abs(expected).max())
    ):
        raise BuildError(f"{program} computes other outputs than those that are scored")
