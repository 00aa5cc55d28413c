"""What `predict.py` sees of an image is what the product sees, and what it computes is what was scored."""

from __future__ import annotations

import runpy
import subprocess
import venv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quant_explorer.core.contracts import Batch, Deployable, Deployment
from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.errors import BuildError
from quant_explorer.core.export import PREDICT, REQUIREMENTS
from quant_explorer.core.progress import Silent
from quant_explorer.pipeline.export.check import check_export, draw_picture, prepare_file, run_predict
from quant_explorer.report.export.render import render_export
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.lowered import LoweredCandidate
from tests.pipeline.export.toy_export import SPEC, export_files, toy_manifest, toy_statement

GREY = InputSpec((1, 28, 28), (0.13,), (0.31,))


def predict_sees(path: Path, spec: InputSpec, folder: Path, *, decoded_whole: bool) -> Batch:
    """Return the batch that `predict.py` makes of an image."""
    (folder / "stub.jinja").write_text("")
    content = render_export(
        toy_statement(folder),
        toy_manifest("eager", spec),
        Deployment((), folder / "stub.jinja"),
        decoded_whole=decoded_whole,
    )
    for name, data in content.items():
        (folder / name).write_bytes(data)
    names = runpy.run_path(str(folder / PREDICT))
    batch: Batch = names["prepare"](names["frame"](names["read_image"](path)))
    return batch


def picture(folder: Path, mode: str, size: tuple[int, int]) -> Path:
    """Write an image of noise, turned by its EXIF orientation where the format has one."""
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    path = folder / f"{mode}.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("decoded_whole", [True, False], ids=["decoded whole", "framed later"])
@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        GREY,
        replace(SPEC, resize=None, interpolation="bilinear", value_range=255.0),
        replace(SPEC, shape=(3, 24, 10), resize=9, interpolation="lanczos"),
        replace(SPEC, antialias=False, interpolation="bilinear"),
        replace(GREY, resize=40),
        replace(SPEC, resize=(20, 31)),
    ],
    ids=["resized", "grey", "covering", "padded", "without antialias", "grey resized", "squashed"],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_predict_sees_the_same_pixels(
    tmp_path: Path, mode: str, spec: InputSpec, decoded_whole: bool
) -> None:
    for size in ((61, 40), (40, 61), spec.shape[:0:-1]):
        path = picture(tmp_path, mode, size)
        expected = prepare_file(path, spec, decoded_whole=decoded_whole)
        found = predict_sees(path, spec, tmp_path, decoded_whole=decoded_whole)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_sixteen_bits_are_refused_as_by_the_data_set(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SystemExit, match="more than 8 bits a channel"):
        predict_sees(tmp_path / "deep.png", SPEC, tmp_path, decoded_whole=True)


@pytest.mark.parametrize("spec", ["fp32", "static_int8_per_channel"])
@pytest.mark.parametrize("name", [name for name, kind in RUNTIMES.items() if isinstance(kind(), Deployable)])
def test_predict_computes_what_a_worker_does(
    name: str, spec: str, lowered: Callable[[str, str], LoweredCandidate], tmp_path: Path
) -> None:
    made = lowered(name, spec)
    export = export_files(made.folder, name, made.lowering.options, tmp_path)
    check_export(export, Silent())
    assert not list(export.rglob("__pycache__"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_requirements_are_all_that_a_fresh_environment_needs(
    name: str,
    lowered: Callable[[str, str], LoweredCandidate],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = lowered(name, "static_int8_per_channel")
    export = export_files(made.folder, name, made.lowering.options, tmp_path)
    draw_picture(tmp_path / "picture.png", SPEC)
    expected = run_predict(export, tmp_path / "picture.png")
    venv.create(tmp_path / "bare", with_pip=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    # What this process imports from is not what the new environment has.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    install = [python, "-m", "pip", "install", "--quiet", "-r", str(export / REQUIREMENTS)]
    subprocess.run(install, check=True)
    np.testing.assert_array_equal(run_predict(export, tmp_path / "picture.png", python), expected)


def test_a_program_that_computes_something_else_is_found(
    lowered: Callable[[str, str], LoweredCandidate], tmp_path: Path
) -> None:
    made = lowered("onnxruntime", "fp32")
    export = export_files(made.folder, "onnxruntime", made.lowering.options, tmp_path)
    program = export / PREDICT
    program.write_text(program.read_text().replace("/ 255 *", "/ 200 *"))
    with pytest.raises(BuildError, match="computes other outputs"):
        check_export(export, Silent())
    program.write_text("raise SystemExit('no such library')")
    with pytest.raises(BuildError, match="exit code 1: no such library"):
        check_export(export, Silent())
