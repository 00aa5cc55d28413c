"""Derives the committed reports again from the committed observations: `make results`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from quant_explorer.cli.app import app
from quant_explorer.cli.console import run_command
from quant_explorer.report.render import PAGE

RESULTS = Path(__file__).parents[1] / "results"
RUN = RESULTS / "cifar10-jpeg"
SWEEP = RESULTS / "cifar10-sweep"
OBSERVED = ("run.json", "study.jsonl")


def main() -> int:
    """Write every derived file of `results/`, and return the exit code of the first command that fails."""
    os.chdir(RESULTS.parent)
    return derive_run(RUN, RUN) or derive_run(RUN / "multi", RUN) or derive_sweep()


def derive_sweep() -> int:
    """Write what is committed of the sweep's report again; returns the command's exit code."""
    committed = set(SWEEP.iterdir())
    code = run_command(app, ["sweep", "--config", str(SWEEP / "sweep.yaml"), "--report-only"])
    for path in set(SWEEP.iterdir()) - committed:
        path.unlink()
    return code


def derive_run(observed: Path, target: Path) -> int:
    """Write the report of the run observed in one folder to another; returns the command's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        for name in OBSERVED:
            shutil.copy(observed / name, folder)
        code = run_command(app, ["report", "--run-dir", folder])
        if code == 0:
            for path in (Path(folder) / "report").iterdir():
                # The page holds megabytes of Plotly; the command makes it from what is committed.
                if path.name != PAGE:
                    shutil.copy(path, target)
        return code


if __name__ == "__main__":
    sys.exit(main())
