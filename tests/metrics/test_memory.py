"""The high-water mark, in a fresh process: what this one did before must not matter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quant_explorer.metrics import memory

MB = 2**20
needs_kernel = pytest.mark.skipif(memory.unavailable() is not None, reason=str(memory.unavailable()))

# Every figure in bytes. Arrays above malloc's threshold come from and go back to the kernel at once.
PROGRAM = """
import json, os
os.environ["MALLOC_MMAP_THRESHOLD_"] = "131072"
import numpy as np
from quant_explorer.metrics import memory
MB = 2**20

def run(batch):
    return np.ones(64 * MB, np.uint8)[: len(batch)].astype(np.float32)

batch = np.zeros((5, 3, 2, 2), np.float32)
found = {"floor": memory.read_resident_bytes()}
spike = np.ones(200 * MB, np.uint8)
found["held"] = memory.read_resident_bytes()
del spike
found["after"] = memory.read_resident_bytes()
found["peak_of_spike"] = memory.read_peak_bytes()
memory.reset_peak()
found["peak_after_reset"] = memory.read_peak_bytes()
measured = memory.measure_peak(run, batch, floor_bytes=11, loaded_bytes=22)
found["peak_of_run"] = measured.peak_bytes
found["batch_size"] = measured.batch_size
found["given_floor"], found["given_loaded"] = measured.floor_bytes, measured.loaded_bytes
small = memory.measure_peak(lambda b: b, batch, floor_bytes=0, loaded_bytes=0)
found["peak_of_nothing"] = small.peak_bytes
found["end"] = memory.read_resident_bytes()
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


@needs_kernel
def test_status_is_read_in_kilobytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t    9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    assert memory.read_resident_bytes() == 1 * MB
    assert memory.read_peak_bytes() == 2 * MB


def test_a_kernel_without_the_mark_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, clear = tmp_path / "status", tmp_path / "clear_refs"
    status.write_text("VmRSS:\t   1024 kB\n")
    monkeypatch.setattr(memory, "_STATUS", status)
    monkeypatch.setattr(memory, "_CLEAR", clear)
    reason = memory.unavailable()
    assert reason is not None
    assert "does not offer a resettable high-water mark" in reason
    assert "VmHWM" in reason
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "clear_refs")
    reason = memory.unavailable()
    assert reason is not None
    assert "No such file" in reason
    status.write_text("VmRSS:\t   1024 kB\nVmHWM:\t   2048 kB\n")
    monkeypatch.setattr(memory, "_CLEAR", clear)
    assert memory.unavailable() is None
    assert clear.read_text() == "5"
