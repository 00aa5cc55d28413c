"""Real processes: what a worker is, and how it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import WorkerDiedError, WorkerError, WorkerTimeoutError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.machine.process import thread_environment
from quant_explorer.machine.topology import core_numbers
from quant_explorer.pipeline.worker import process as worker_module
from quant_explorer.pipeline.worker.messages import Loading, Opening
from quant_explorer.pipeline.worker.process import Worker, runtime_path
from quant_explorer.testing.fake_runtime import FakeRuntime, Fault
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import toy_batches, toy_linear_model
from tests.faults.processes import gone, wait_until_gone

SHAPE = (3, 4, 4)
BATCH = toy_batches(SHAPE, count=1)[0]
# Of a worker that is expected to answer; nothing is judged by it.
PATIENCE_S = 600.0
Opener = Callable[..., Worker]


@dataclass(frozen=True)
class ServedCandidate:
    """What a worker is told of a lowered model."""

    loading: Loading
    opening: Opening


def started(lowered: ServedCandidate, *, log: Path, timeout_s: float) -> Worker:
    worker = Worker(lowered.loading, log=log, timeout_s=timeout_s)
    worker.assign(lowered.opening)
    return worker


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.fixture
def lowered(tmp_path: Path) -> Callable[..., ServedCandidate]:
    """Lower the toy linear model for a fake runtime with a fault."""

    def lower(fault: Fault = "", fault_after: int = 0, threads: int = 1) -> ServedCandidate:
        folder = tmp_path / f"artifact-{fault}"
        folder.mkdir()
        runtime = FakeRuntime(fault, fault_after)
        lowering = runtime.lower(Candidate(toy_linear_model(), QuantSpec()), [BATCH], folder)
        loading = Loading(runtime_path(FakeRuntime), lowering.options, core_numbers()[-threads:])
        return ServedCandidate(loading, Opening(lowering.options, str(folder)))

    return lower


def status_of(process: int, field: str) -> str:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))


def test_it_answers_what_the_float_model_computes(lowered: Callable[..., ServedCandidate], log: Path) -> None:
    with started(lowered(), log=log, timeout_s=PATIENCE_S) as worker:
        opened = worker.open(BATCH[:1])
        assert opened.cold_start_s > 0
        logits = worker.run(BATCH)
        np.testing.assert_allclose(logits, float_logits(toy_linear_model(), BATCH), rtol=1e-4, atol=1e-5)
        assert worker.executed(BATCH).macs == {"fp32": 48 * 4}
        worker.hold(BATCH)
        calls = worker.time(3)
        assert calls
        assert min(calls) > 0
        memory = worker.measure_memory(BATCH)
        assert memory.batch_size == len(BATCH)
        assert opened.floor_bytes == memory.floor_bytes
        assert opened.loaded_bytes == memory.loaded_bytes


def test_it_is_a_fresh_process_in_a_session_of_its_own(
    lowered: Callable[..., ServedCandidate], log: Path
) -> None:
    import torch  # the parent has it

    assert torch.__name__ in sys.modules
    with started(lowered(), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)
        process = psutil.Process(worker.pid)
        assert process.ppid() == os.getpid()
        assert os.getsid(worker.pid) == worker.pid
        assert Path(process.cmdline()[0]).resolve() == Path(sys.executable).resolve()
        mapped = Path(f"/proc/{worker.pid}/maps").read_text()
        # Nothing of the parent came along: neither its libraries nor its model.
        assert "libtorch" not in mapped
        assert "numpy" in mapped


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_a_thread_that_ends_meanwhile_is_no_failure(
    lowered: Callable[..., ServedCandidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []

    def keep(task: int, cores: Sequence[int]) -> None:
        if task != threading.get_native_id():
            raise ProcessLookupError(errno.ESRCH, "No such process")
        kept.append(task)

    monkeypatch.setattr(os, "sched_setaffinity", keep)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        worker_module._load(lowered().loading)
    finally:
        over.set()
        thread.join()
    assert kept == [threading.get_native_id()]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_all_its_threads_are_pinned(lowered: Callable[..., ServedCandidate], log: Path) -> None:
    with started(lowered(), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)
        core = str(core_numbers()[-1])
        assert status_of(worker.pid, "Cpus_allowed_list") == core
        tasks = [task.name for task in Path(f"/proc/{worker.pid}/task").iterdir()]
        assert {status_of(int(task), "Cpus_allowed_list") for task in tasks} == {core}


def test_its_thread_pools_are_configured_to_be_small_and_not_to_spin(
    lowered: Callable[..., ServedCandidate], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with started(lowered(), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)
        own = psutil.Process(worker.pid).environ()
    assert own["OMP_NUM_THREADS"] == own["MKL_NUM_THREADS"] == own["OPENBLAS_NUM_THREADS"] == "1"
    assert own["OMP_WAIT_POLICY"] == "PASSIVE"
    assert thread_environment(3)["OMP_NUM_THREADS"] == "3"


def test_modules_in_the_users_folder_do_not_come_in(
    lowered: Callable[..., ServedCandidate], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    with started(lowered(), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)


def test_leaving_ends_the_process(lowered: Callable[..., ServedCandidate], log: Path) -> None:
    with started(lowered(), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)
    assert gone(worker.pid)
    with pytest.raises(KeyboardInterrupt), started(lowered("nan"), log=log, timeout_s=PATIENCE_S) as worker:
        raise KeyboardInterrupt
    assert gone(worker.pid)


def test_a_killed_worker_names_the_signal_and_the_question(
    lowered: Callable[..., ServedCandidate], log: Path
) -> None:
    with started(lowered(), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match=r"died during Run \(signal SIGKILL"):
            worker.run(BATCH)


def test_a_worker_that_kills_itself_is_distinguished_from_one_that_fails(
    lowered: Callable[..., ServedCandidate], log: Path
) -> None:
    with (
        started(lowered("die"), log=log, timeout_s=PATIENCE_S) as worker,
        pytest.raises(WorkerDiedError, match="during Open"),
    ):
        worker.open(BATCH)


def test_a_worker_that_hangs_is_ended(lowered: Callable[..., ServedCandidate], log: Path) -> None:
    with started(lowered("hang", fault_after=1), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)
        worker._timeout_s = 0.2
        with pytest.raises(WorkerTimeoutError, match=r"no answer to Run within 0\.2 s"):
            worker.run(BATCH)
        wait_until_gone(worker.pid)


def test_a_runtime_that_hangs_while_it_loads_is_ended(
    lowered: Callable[..., ServedCandidate], log: Path
) -> None:
    # More than a pipe takes from one who writes to a process that does not read.
    image = np.zeros((1, 3, 224, 224), np.float32)
    with (
        started(lowered("hang_loading"), log=log, timeout_s=2.0) as worker,
        pytest.raises(WorkerTimeoutError, match="no answer to Open within 2 s"),
    ):
        worker.open(image)


def test_a_process_that_cannot_be_started_is_a_reason(
    lowered: Callable[..., ServedCandidate], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(WorkerError, match=r"no worker process could be started \(Cannot allocate memory\)"):
        started(lowered(), log=log, timeout_s=PATIENCE_S)


def test_an_error_inside_is_a_reason_here_and_a_traceback_in_the_log(
    lowered: Callable[..., ServedCandidate], log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with started(lowered("raise", fault_after=1), log=log, timeout_s=PATIENCE_S) as worker:
        worker.open(BATCH)
        with pytest.raises(WorkerError, match=r"^RuntimeError: the fake runtime was asked to raise$"):
            worker.run(BATCH)
        # It is still there, and can be asked something else.
        assert worker.executed(BATCH).macs
    sentences = log.read_text()
    assert "Traceback" in sentences
    assert "in _fail" in sentences
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_a_reason(lowered: Callable[..., ServedCandidate], log: Path) -> None:
    described = lowered()
    Path(described.opening.folder, "linear.npz").unlink()
    with (
        started(described, log=log, timeout_s=PATIENCE_S) as worker,
        pytest.raises(WorkerError, match=r"No such file or directory: .*linear\.npz"),
    ):
        worker.open(BATCH)
