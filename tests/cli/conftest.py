"""A finished run of the whole pipeline, which most tests of the command line look at."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quant_explorer.cli.app import app
from quant_explorer.cli.console import run_command, verbosity
from tests.conftest import made_once

from .invoking import EAGER, QUICK, SMALL, Place

CALIBRATED = "static_int8_per_channel"


@pytest.fixture(scope="session")
def shared_cache(shared_folder: Path) -> Path:
    """The cache of decoded images that all these tests share."""
    return shared_folder / "cache"


@pytest.fixture
def place(tmp_path: Path, shared_cache: Path) -> Place:
    """An empty working directory."""
    return Place(tmp_path, shared_cache)


@pytest.fixture(scope="session")
def finished(shared_folder: Path, shared_cache: Path) -> Place:
    """A working directory with a finished `runs/mnist5k-small_cnn-tiny`. Tests must not change it."""

    def finish(folder: Path) -> None:
        done = Place(folder, shared_cache).call("pipeline", "--tiny", *EAGER, *SMALL, *QUICK)
        assert done.returncode == 0, done.stderr
        # Those of the libraries are in the log.
        assert "Warning" not in done.stderr

    return Place(made_once(shared_folder / "finished", finish), shared_cache)


@pytest.fixture
def copied(place: Place, finished: Place) -> Place:
    """A working directory of its own with a copy of that run in `run`."""
    shutil.copytree(finished.folder / "runs" / "mnist5k-small_cnn-tiny", place.folder / "run")
    return place


@pytest.fixture
def invoke(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Call the command line in this process: returns the exit code and all that it printed."""
    monkeypatch.chdir(place.folder)
    for name, value in place.environment.items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)

    def call(*arguments: str | Path) -> tuple[int, str]:
        verbosity.level = 0
        code = run_command(app, [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    yield call
    verbosity.level = 0
    logging.captureWarnings(False)
