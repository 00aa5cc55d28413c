"""The lines of docs/deploy.md, run as they stand, in a copy of an artifact's folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.conformance_runtime import INT8_SQNR_DB
from quant_explorer.testing.lowered import LoweredCandidate
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import toy_batches, toy_model
from tests.docs.documents import ROOT

# The lines are those of every precision; this one leaves most to the runtime.
SPEC = "static_int8_per_channel"
BEFORE = "import numpy as np\nimages = np.load('../images.npy')\n"
AFTER = """
import sys
assert not any(name.startswith("quant_explorer.") for name in sys.modules)
assert isinstance(logits, np.ndarray), type(logits)
np.save('../logits.npy', logits)
"""


def lines_of(runtime: str) -> str:
    text = (ROOT / "docs" / "deploy.md").read_text()
    found = re.search(rf"^## {runtime}$.*?^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert found, f"docs/deploy.md has no lines for {runtime}"
    return found[1]


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_artifact_runs_without_this_package(
    name: str, lowered: Callable[[str, str], LoweredCandidate], tmp_path: Path
) -> None:
    shutil.copytree(lowered(name, SPEC).folder, tmp_path / "artifact")
    (images,) = toy_batches(count=1, seed=3)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + lines_of(name) + AFTER],
        cwd=tmp_path / "artifact",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    logits = np.load(tmp_path / "logits.npy")
    assert logits.dtype == np.float32
    assert (sqnr_db(logits, float_logits(toy_model(), images)) or 0.0) > INT8_SQNR_DB
