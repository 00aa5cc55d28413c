"""The extension guide, applied to a copy of the sources exactly as it is printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.documents import GUIDE, ROOT, Block, blocks

BLOCKS = [block for block in blocks(GUIDE) if block.file]
TESTS = [block.file for block in BLOCKS if block.file and block.file.startswith("tests/")]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with everything that the guide adds."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for block in BLOCKS:
        assert block.file is not None
        path = root / block.file
        if block.info.startswith("diff"):
            path.write_text(patched(path.read_text(), block.content))
        else:
            assert not path.exists(), f"{block.file} exists; the guide adds it"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content)
    return root


def patched(source: str, diff: str) -> str:
    """Apply hunks, separated by empty lines; what a hunk replaces must be there exactly once."""
    for hunk in re.split(r"\n\n", diff.strip("\n")):
        lines = hunk.splitlines()
        old = "\n".join(line[1:] for line in lines if line[0] in " -")
        new = "\n".join(line[1:] for line in lines if line[0] in " +")
        assert source.count(old) == 1, f"not there exactly once:\n{old}"
        source = source.replace(old, new)
    return source


def run(extended: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(extended / "src"),
        "XDG_CACHE_HOME": str(extended / "cache"),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=extended,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_guide_has_a_worked_example_of_each() -> None:
    added = {block.file.split("/")[2] for block in BLOCKS if block.file and block.file.startswith("src/")}
    assert {"techniques", "runtimes", "datasets", "models", "metrics"} <= added
    assert len(TESTS) == 6


@pytest.mark.slow
def test_the_tests_of_the_guide_pass(extended: Path) -> None:
    result = run(
        extended, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=result.xml", *map(str, TESTS)
    )
    assert result.returncode == 0, result.stdout + result.stderr
    cases = ElementTree.parse(extended / "result.xml").getroot().iter("testcase")
    passed = [case.attrib["classname"] for case in cases if case.find("skipped") is None]
    for test in TESTS:
        module = str(test).removesuffix(".py").replace("/", ".")
        assert [name for name in passed if name.startswith(module)], f"nothing of {test} was run"


@pytest.mark.slow
def test_what_the_guide_adds_can_be_named(extended: Path) -> None:
    result = run(extended, "-c", "from quant_explorer.cli import main; main()", "list", "--json")
    assert result.returncode == 0, result.stderr
    names = {(row["kind"], row["name"]) for row in json.loads(result.stdout)}
    assert {
        ("technique", "weight_clipping"),
        ("configuration", "clipped_int8"),
        ("runtime", "exported"),
        ("data set", "npz"),
        ("model", "lenet5"),
        ("metric", "cpu_time"),
        ("metric", "ece"),
    } <= names


@pytest.mark.slow
def test_the_metrics_of_the_guide_are_columns_of_the_report(extended: Path) -> None:
    tiny = ("--train-subset", "200", "--test-subset", "100", "--epochs", "1", "--run-dir", "run")
    command = ("evaluate", "--config", "fp32_baseline", "--batch-sizes", "1", *tiny)
    result = run(extended, "-c", "from quant_explorer.cli import main; main()", *command)
    assert result.returncode == 0, result.stderr
    lines = (extended / "run" / "report" / "pareto.md").read_text().splitlines()
    (heading,) = [number for number, line in enumerate(lines) if "| cpu_time_s" in line]
    headings, row = ([cell.strip() for cell in lines[heading + offset].split("|")] for offset in (0, 2))
    assert float(row[headings.index("cpu_time_s")].split()[0]) > 0
    assert 0 < float(row[headings.index("ece_fraction")]) < 1


def test_the_code_of_the_guide_is_as_clean_as_ours(extended: Path) -> None:
    files = sorted({str(block.file) for block in BLOCKS})
    for command in (["check"], ["format", "--check"]):
        result = run(extended, "-m", "ruff", *command, "--no-cache", *files)
        assert result.returncode == 0, result.stdout + result.stderr


def test_a_hunk_that_does_not_fit_is_refused() -> None:
    with pytest.raises(AssertionError, match="not there exactly once"):
        patched("a\nb\n", "-c\n+d\n")
    assert patched("a\nb\nc\n", " a\n-b\n+B\n\n c\n+d\n") == "a\nB\nc\nd\n"


def test_blocks_are_of_a_known_kind() -> None:
    assert {block.info.split()[0] for block in BLOCKS} == {"python", "diff"}
    assert [Block("python file=a.py", "").file, Block("sh", "").file] == ["a.py", None]
