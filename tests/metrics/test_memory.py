"""The high-water mark, in a fresh process: what this one did before must not matter."""

import json
import subprocess
import sys

import pytest

from quant_explorer.machine.memory import ResidentMemory

MB = 2**20
REASON = ResidentMemory().unavailable()
needs_kernel = pytest.mark.skipif(REASON is not None, reason=str(REASON))

# Every figure in bytes. Arrays above malloc's threshold come from and go back to the kernel at once.
PROGRAM = """
import json, os
os.environ["MALLOC_MMAP_THRESHOLD_"] = "131072"
import numpy as np
from quant_explorer.machine.memory import ResidentMemory
from quant_explorer.metrics.memory import measure_peak
memory = ResidentMemory()
MB = 2**20

def run(batch):
    return np.ones(64 * MB, np.uint8)[: len(batch)].astype(np.float32)

batch = np.zeros((5, 3, 2, 2), np.float32)
found = {"floor": memory.read_bytes()}
spike = np.ones(200 * MB, np.uint8)
found["held"] = memory.read_bytes()
del spike
found["after"] = memory.read_bytes()
found["peak_of_spike"] = memory.read_peak_bytes()
memory.reset_peak()
found["peak_after_reset"] = memory.read_peak_bytes()
measured = measure_peak(run, batch, memory, floor_bytes=11, loaded_bytes=22)
found["peak_of_run"] = measured.peak_bytes
found["batch_size"] = measured.batch_size
found["given_floor"], found["given_loaded"] = measured.floor_bytes, measured.loaded_bytes
small = measure_peak(lambda b: b, batch, memory, floor_bytes=0, loaded_bytes=0)
found["peak_of_nothing"] = small.peak_bytes
found["end"] = memory.read_bytes()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    figures: dict[str, int] = json.loads(result.stdout)
    return figures


@needs_kernel
def test_what_is_held_is_resident(found: dict[str, int]) -> None:
    assert 195 * MB <= found["held"] - found["floor"] <= 215 * MB
    assert found["after"] - found["floor"] <= 15 * MB


@needs_kernel
def test_reset_forgets_what_was_before(found: dict[str, int]) -> None:
    assert found["peak_of_spike"] >= found["floor"] + 195 * MB
    assert found["peak_after_reset"] <= found["after"] + 5 * MB


@needs_kernel
def test_peak_of_a_run_that_allocates_64_mb(found: dict[str, int]) -> None:
    """Neither what was freed before it nor what it frees at once escapes or is counted twice."""
    assert 60 * MB <= found["peak_of_run"] - found["after"] <= 74 * MB
    assert found["peak_of_nothing"] - found["end"] <= 5 * MB


@needs_kernel
def test_the_rest_is_passed_on(found: dict[str, int]) -> None:
    assert found["batch_size"] == 5
    assert (found["given_floor"], found["given_loaded"]) == (11, 22)
