"""A finished run of the whole pipeline, which most tests of the command line look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_explorer.report.sweep import files as sweep
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.runtimes.onnxruntime.runtime import OnnxRuntime
from tests.cli.invoking import ONNX, QUICK, SMALL, Invoke, Place, called_here
from tests.conftest import made_once

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
        done = Place(folder, shared_cache).call("pipeline", "--tiny", *ONNX, *SMALL, *QUICK)
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
def invoke(place: Place) -> Iterator[Invoke]:
    """Call the command line in this process: returns the exit code and all that it printed."""
    with called_here(place) as call:
        yield call


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no plots of a sweep, which take seconds and have tests of their own."""
    monkeypatch.setattr(sweep, "draw_sweep", lambda rows, layers, peaks: {})


@pytest.fixture(scope="module")
def light_baseline() -> Iterator[None]:
    """Run what is called eager on ONNX Runtime, where it does not matter: PyTorch is imported for 2 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RUNTIMES._members, "eager", OnnxRuntime)
        yield
