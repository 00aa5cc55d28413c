from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.core.contracts import Deployment
from quant_explorer.core.errors import StudyError
from quant_explorer.core.export import CLASSES, PREDICT, PREPROCESSING
from quant_explorer.core.host.packages import installed_version
from quant_explorer.pipeline.export.folder import find_deployment
from quant_explorer.report.export.render import list_requirements, render_card, render_export
from tests.pipeline.export.toy_export import SPEC, toy_manifest, toy_statement

# The model itself is not needed to read an image.
_READ = "import sys; sys.path.insert(0, '.'); import predict; predict.read_image(sys.argv[1])"

# Markdown, HTML, a terminal's colours, the end of a Python string.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "`](javascript:x)",
    "a\nb\n# c",
    "\x1b[31mred",
    '"""\nimport os',
    "|",
)


def test_every_file_is_there_and_pre_processing_is_data(tmp_path: Path) -> None:
    files = render_export(
        toy_statement(tmp_path), toy_manifest("eager"), find_deployment("eager"), decoded_whole=True
    )
    assert json.loads(files[CLASSES]) == ["amber", "blue", "coral", "dusk"]
    spec = json.loads(files[PREPROCESSING])
    assert (spec["height"], spec["width"], spec["resize"]) == (16, 16, 20)
    assert (spec["mean"], spec["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    assert (spec["colour_order"], spec["interpolation"]) == ("RGB", "bicubic")
    assert b"def open_model(folder):" in files[PREDICT]


def test_the_card_has_the_figures_with_their_intervals_and_what_they_need(tmp_path: Path) -> None:
    manifest = replace(toy_manifest("eager"), needs=("VNNI",))
    card = render_card(toy_statement(tmp_path), manifest)
    assert "| top-1, % | 99.50 [98.20, 99.86] |" in card
    assert "| change of top-1 against FP32, pp | -0.50 [-1.80, +0.46] (tie) |" in card
    assert "| times as fast as FP32 in PyTorch at batch 1 | 2.0" in card
    assert "CPU features that the accuracy needs: VNNI" in card
    assert "Its accuracy is not shown to be within 0.5 pp of FP32." in card


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    statement = toy_statement(tmp_path)
    statement = replace(statement, variant=replace(statement.variant, notes=HOSTILE))
    card = render_card(statement, toy_manifest("eager", classes=HOSTILE))
    assert "`<img src=x onerror=alert(1)>`" in card
    assert "- &#60;img src=x onerror=alert(1)&#62;" in card
    assert "`` `](javascript:x) ``" in card
    assert "`a\\x0ab\\x0a# c`" in card
    assert not {"\x1b", "\t"} & set(card)
    assert "import os" not in {line.strip() for line in card.splitlines()}


def test_the_program_names_a_file_that_is_no_image_in_a_line(tmp_path: Path) -> None:
    files = render_export(
        toy_statement(tmp_path), toy_manifest("eager"), find_deployment("eager"), decoded_whole=True
    )
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "é.jpg").write_bytes(b"broken")
    for image, reason in (("é.jpg", "not an image"), ("none.jpg", "No such file"), (".", "Is a directory")):
        ended = subprocess.run(
            [sys.executable, "-c", _READ, image],
            cwd=tmp_path,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 1
        assert reason in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_nothing_of_the_users_is_in_the_program(tmp_path: Path) -> None:
    for number, classes in enumerate((HOSTILE, ("a", "b"))):
        content = render_export(
            toy_statement(tmp_path / str(number)),
            toy_manifest("eager", classes=classes),
            find_deployment("eager"),
            decoded_whole=True,
        )
        (tmp_path / f"{number}.py").write_bytes(content[PREDICT])
    assert (tmp_path / "0.py").read_bytes() == (tmp_path / "1.py").read_bytes()


@pytest.mark.parametrize(
    ("runtime", "packages"),
    [
        ("eager", {"torch"}),
        ("torchscript", {"torch"}),
        ("inductor", {"torch"}),
        ("onnxruntime", {"onnxruntime"}),
        ("openvino", {"openvino"}),
        ("executorch", {"executorch", "torch"}),
    ],
)
def test_requirements_are_the_bare_runtime_in_exact_versions(
    tmp_path: Path, runtime: str, packages: set[str]
) -> None:
    text = list_requirements(
        toy_statement(tmp_path, runtime), toy_manifest(runtime), find_deployment(runtime)
    )
    pinned = dict(line.split("==") for line in text.splitlines())
    assert set(pinned) == packages | {"numpy", "pillow"}
    for package in packages:
        assert pinned[package] == (installed_version(package) or "").partition("+")[0]


def test_scaling_without_antialias_needs_torchvision(tmp_path: Path) -> None:
    statement = toy_statement(tmp_path)
    versions = statement.environment.versions | {"torchvision": "0.29.1+cpu"}
    statement = replace(statement, environment=replace(statement.environment, versions=versions))
    manifest = toy_manifest("eager", replace(SPEC, antialias=False))
    assert "torchvision==0.29.1\n" in list_requirements(statement, manifest, find_deployment("eager"))


def test_a_version_that_was_not_recorded_is_not_invented(tmp_path: Path) -> None:
    statement, manifest = toy_statement(tmp_path), toy_manifest("eager")
    with pytest.raises(StudyError, match="no version of a-runtime"):
        list_requirements(statement, manifest, Deployment(("a-runtime",), tmp_path))
