"""For all tests: how they share the machine, and artifacts of the toy model that are lowered once."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from filelock import FileLock

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.recipe import ParameterValue
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.lowered import SPECS, LoweredCandidate, lower
from quant_explorer.testing.toys import toy_batches, toy_model
from tests.kept_objects import kept_objects

if "PYTEST_XDIST_WORKER" in os.environ:
    # One process a core; each would start a thread for every core, and they would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# Each method of ExecuTorch costs seconds to lower; test_executorch.py has several in one file.
OPTIONS: Mapping[str, Mapping[str, ParameterValue]] = {"executorch": {"batch_sizes": "1"}}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put groups with a slow test first: at the end, one would leave the other processes without work."""

    def group(item: pytest.Item) -> str:
        return item.nodeid.rpartition("::")[0]  # as `--dist loadscope` has them

    slow = {group(item) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: group(item) not in slow)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of this test run have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills in the first process that asks for it; others wait."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def lowered(shared_folder: Path) -> Callable[[str, str], LoweredCandidate]:
    """Return the toy model's files on a runtime by spec, or skip with the reason why there are none.

    Tests must not change them.
    """

    model = toy_model()  # One, so that it is exported once.

    def find(name: str, spec: str) -> LoweredCandidate:
        runtime = RUNTIMES[name](**OPTIONS.get(name, {}))
        candidate = Candidate(model, SPECS[spec])
        reason = runtime.unavailable() or runtime.unsupported(candidate)
        if reason:
            pytest.skip(reason)

        def make(folder: Path) -> None:
            with kept_objects(shared_folder):
                made = lower(runtime, candidate, toy_batches(), folder)
            (folder / "lowering.pickle").write_bytes(pickle.dumps((made.lowering, made.changed)))

        folder = made_once(shared_folder / f"{name}-{spec}", make)
        lowering, changed = pickle.loads((folder / "lowering.pickle").read_bytes())
        return LoweredCandidate(candidate, lowering, changed, folder / "moved")

    return find
