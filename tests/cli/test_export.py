"""From a finished run to a class of an image, in two commands."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from quant_explorer.core.progress import Silent
from quant_explorer.core.study import StudyFile
from quant_explorer.datasets import DataOptions, find_dataset
from quant_explorer.pipeline.run import RunFolder
from tests.cli.conftest import CALIBRATED
from tests.cli.invoking import Invoke, Place

VARIANT = f"{CALIBRATED}@onnxruntime"
RUN = ("--run-dir", "run")


def predict(python: str | Path, folder: Path, *arguments: str | Path) -> str:
    """Run the program of an export, away from its folder and without this package's path."""
    done = subprocess.run(
        [str(python), str(folder / "predict.py"), *map(str, arguments)],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def scored_image(place: Place, folder: Path) -> tuple[Path, np.ndarray]:
    """Write an image of the report split as a file, and return it with the logits that were scored."""
    run = RunFolder(place.folder / "run")
    described = run.describe()
    assert described is not None
    settings = described.settings
    options = dataclasses.replace(
        DataOptions.of(settings), data_dir=place.folder, cache_dir=place.cache / "quant-explorer"
    )
    images = find_dataset(settings.data, options, Silent()).load().report
    study = StudyFile.load(run.study)
    (digest,) = {
        measurement.variant.digest
        for environment in study.environments
        for measurement in study.measurements(environment).values()
        if measurement.variant.name == VARIANT
    }
    with np.load(run.outputs / f"{digest}.npz") as stored:
        position, logits = int(stored["positions"][3]), stored["logits"][3]
    Image.fromarray(images.take(np.array([position]))[0, ..., 0]).save(folder / "digit.png")
    return folder / "digit.png", logits


def test_an_export_gives_the_logits_that_were_scored_and_names_five_classes(
    invoke: Invoke, copied: Place, tmp_path: Path
) -> None:
    code, printed = invoke("export", VARIANT, *RUN, "--to", "to", "--check")
    assert code == 0, printed
    image, scored = scored_image(copied, tmp_path)
    logits = np.array(json.loads(predict(sys.executable, tmp_path / "to", image, "--logits")))
    np.testing.assert_allclose(logits, scored, rtol=0, atol=1e-5 * np.abs(scored).max())
    lines = [line.split() for line in predict(sys.executable, tmp_path / "to", image).splitlines()]
    assert [name for _, name in lines] == [str(digit) for digit in np.argsort(-scored, kind="stable")[:5]]


def test_wrong_names_and_folders_are_wrong_use(invoke: Invoke, copied: Place) -> None:
    code, printed = invoke("export", "static_int8_per_chanel@onnxruntime", *RUN, "--to", "to")
    assert code == 2
    assert f"Did you mean '{VARIANT}'?" in printed
    code, printed = invoke("export", VARIANT, *RUN, "--to", "run")
    assert code == 2
    assert "Allowed: a folder that is new or empty" in printed
    assert (copied.folder / "run" / "study.jsonl").exists()


def test_exporting_imports_no_torch_and_no_runtime(copied: Place) -> None:
    arguments = ("export", VARIANT, *RUN, "--to", "to")
    program = (
        "import sys; from quant_explorer.cli import app, run_command; "
        f"code = run_command(app, {arguments!r}); "
        "slow = {'torch', 'onnxruntime', 'openvino', 'matplotlib'}; "
        "print('imported:', *sorted(slow & set(sys.modules)), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=copied.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported: 0"


def test_the_answer_comes_with_the_command_that_exports_it(
    invoke: Invoke, copied: Place, tmp_path: Path
) -> None:
    code, printed = invoke("report", *RUN)
    assert code == 0
    (command,) = [line for line in printed.splitlines() if line.startswith("Export: ")]
    assert command.removeprefix("Export: ") in (tmp_path / "run/report/index.html").read_text()
    words = command.split()
    assert words[1:3] == ["quant-explorer", "export"]
    code, printed = invoke(*words[2:])
    assert code == 0, printed
