"""What a library prints is in the run's log and not between our figures. A user's model stands for it."""

from __future__ import annotations

import json

import pytest

from tests.cli.invoking import QUICK, SMALL, Place

pytestmark = pytest.mark.slow

MODEL = """
import ctypes, os, sys
from torch import nn

print("NOISE on import")

def make(num_classes):
    os.write(1, b"NOISE on 1\\n")
    os.write(2, b"NOISE on 2\\n")
    print("NOISE printed")
    print("NOISE printed on stderr", file=sys.stderr)
    ctypes.CDLL(None).printf(b"NOISE in C\\n")
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, num_classes))

def fail(num_classes):
    make(num_classes)
    raise RuntimeError("no such layer")
"""
NOISE = ("on import", "on 1", "on 2", "printed", "printed on stderr", "in C")
RUN = ("--epochs", "1", *SMALL, "--run-dir", "run")


def test_only_figures_and_messages_reach_the_terminal(place: Place) -> None:
    (place.folder / "mine.py").write_text(MODEL)
    log = place.folder / "run" / "log.txt"
    make = ("--model", "mine.py:make", *RUN)

    done = place.call("evaluate", "--config", "fp32_baseline", *make, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    assert [variant["status"] for variant in json.loads(done.stdout)["variants"]] == ["ok"]
    assert "score fp32_baseline@eager: done" in done.stderr
    assert "NOISE" not in done.stdout + done.stderr
    assert all(f"NOISE {source}\n" in log.read_text() for source in NOISE)

    done = place.call("evaluate", "--config", "fp32_baseline", *make)
    assert done.returncode == 0, done.stderr
    assert "fp32_baseline" in done.stdout
    # The answer comes last, then where to read on and what to distrust.
    parts = (
        "Pareto table",
        "\nNothing to ship: nothing was timed at batch size 1 yet",
        "\nReport: run/report/index.html\nDistrust: ",
    )
    places = [done.stdout.index(part) for part in parts]
    assert places == sorted(places)
    assert "NOISE" not in done.stdout + done.stderr

    logged = log.read_text().count("NOISE")
    done = place.call("quantize", "--config", "fp32_baseline", *make, "-v")
    assert done.returncode == 0, done.stderr
    assert all(f"NOISE {source}\n" in done.stdout for source in ("on import", "on 1", "printed", "in C"))
    assert all(f"NOISE {source}\n" in done.stderr for source in ("on 2", "printed on stderr"))
    assert log.read_text().count("NOISE") == logged


def test_an_error_is_still_reported(place: Place) -> None:
    (place.folder / "mine.py").write_text(MODEL)
    done = place.call("train", "--model", "mine.py:fail", *RUN)
    assert done.returncode == 2
    assert done.stdout == ""
    # The message of the user's own error, and the line that raises it.
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith("error: mine.py: fail() failed with RuntimeError: no such layer, at ")
    assert error.endswith(': raise RuntimeError("no such layer")')
    assert "NOISE" not in done.stderr
    assert "NOISE printed\n" in (place.folder / "run" / "log.txt").read_text()
