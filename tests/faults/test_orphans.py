"""No process outlives the command that started it, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.machine.topology import core_numbers
from quant_explorer.testing.fake_runtime import FakeRuntime
from quant_explorer.testing.toys import toy_batches, toy_linear_model
from tests.faults.processes import gone, wait_until_gone

# Where the tests run in the background, a shell has set SIGINT to be ignored.
OPENED = """
import signal, sys, pathlib, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)
from quant_explorer.pipeline.worker.messages import Loading, Opening
from quant_explorer.pipeline.worker.process import Worker
folder, core, log = sys.argv[1:]
options = (("fault", "hang"), ("fault_after", 1))
loading = Loading("quant_explorer.testing.fake_runtime:FakeRuntime", options, (int(core),))
with Worker(loading, log=pathlib.Path(log), timeout_s=3600) as worker:
    worker.assign(Opening(options, folder))
    worker.open(np.zeros((1, 3, 4, 4), np.float32))
    print(worker.pid, flush=True)
    worker.run(np.zeros((1, 3, 4, 4), np.float32))
"""
# The process that it starts never comes to the pipe: it imports, as far as it goes.
IMPORTING = """
import os, signal, sys
from quant_explorer.machine.process import start_process
log = open(sys.argv[1], "wb")
process, connection = start_process("import time; time.sleep(3600)", {}, log)
print(process.pid, flush=True)
if sys.argv[2] == "later":
    signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    FakeRuntime().lower(Candidate(toy_linear_model(), QuantSpec()), toy_batches((3, 4, 4), count=1), tmp_path)
    arguments = [str(tmp_path), str(core_numbers()[-1]), str(tmp_path / "log.txt")]
    with subprocess.Popen(
        [sys.executable, "-c", OPENED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert not gone(worker)
        parent.send_signal(how)
    wait_until_gone(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends once its imports have ended")
@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_worker_that_is_still_importing_ends_too(tmp_path: Path, when: str) -> None:
    """Before it has asked for the signal of its parent's death, and after."""
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTING, str(tmp_path / "log.txt"), when], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        if when == "later":
            parent.send_signal(signal.SIGKILL)
    wait_until_gone(worker)
