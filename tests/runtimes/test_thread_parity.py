"""A runtime that is given one thread uses one: no pool of its own, no spinning, also where none is pinned."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from quant_explorer.machine.process import thread_environment
from quant_explorer.pipeline.worker.process import runtime_path
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.lowered import LoweredCandidate

# Of the thread that calls: against the time that passes, two would look like one on a busy machine.
MOST_CPU_OF_CALLER = 1.1
# Not pinned, unlike the workers: affinity would hide a second thread.
PROGRAM = """
import importlib, json, sys, time
import numpy as np
from pathlib import Path

path, *artifacts = sys.argv[1:]
module, _, name = path.partition(":")
kind = getattr(importlib.import_module(module), name)
runtimes = [kind(**json.loads(options)) for options in artifacts[::2]]
# Of the last, for a process sets its threads once.
runtimes[-1].load_libraries(1)
batch = np.random.default_rng(0).standard_normal((32, 3, 16, 16), dtype=np.float32)
for runtime, folder in zip(runtimes, artifacts[1::2], strict=True):
    session = runtime.open(Path(folder))
    for _ in range(10):
        session.run(batch)
    wall, cpu, caller = time.perf_counter(), time.process_time(), time.thread_time()
    while time.perf_counter() - wall < 0.5:
        session.run(batch)
    print((time.process_time() - cpu) / (time.thread_time() - caller))
"""


@pytest.mark.parametrize("name", RUNTIMES)
def test_one_thread_is_one_thread(name: str, lowered: Callable[[str, str], LoweredCandidate]) -> None:
    both = [lowered(name, spec) for spec in ("fp32", "static_int8_per_channel")]
    artifacts = [(json.dumps(dict(candidate.lowering.options)), str(candidate.folder)) for candidate in both]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, runtime_path(RUNTIMES[name]), *itertools.chain(*artifacts)],
        env=os.environ | thread_environment(1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # What a library prints comes before.
    cpu_of_caller = [float(line) for line in done.stdout.splitlines()[-len(both) :]]
    assert max(cpu_of_caller) <= MOST_CPU_OF_CALLER
