"""A fresh Python process that keeps to the cores it is given and ends with the process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from quant_explorer.core.errors import WorkerError, explain
from quant_explorer.machine.channel import Channel, create_file

_TASKS = Path("/proc/self/task")
# Runs before anything that takes long to import: a process that imports, or hangs in a call, would
# outlive a parent that is killed. Whose parent is gone by now gets no signal any more.
_FOLLOW_PARENT = """\
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[2]):
        sys.exit()
"""


def start_process(
    program: str, environment: Mapping[str, str], output: IO[bytes]
) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start Python on the source `program`, and return it with this end of a channel to it.

    `environment` is added to this process's own; standard output and error go to the file `output`. The
    program reaches the channel by `connect_to_parent`. On Linux it is killed with the thread that calls this,
    also while it still imports; elsewhere it ends when it finds the pipe closed. Raises WorkerError when the
    system starts no further process.
    """
    child_end, own_end = Pipe()
    channel = Channel(own_end, create_file())
    source = _FOLLOW_PARENT + program
    try:
        process = subprocess.Popen(
            # -P: a random.py in the user's folder is not the standard library's.
            [sys.executable, "-P", "-c", source, *map(str, (child_end.fileno(), os.getpid(), channel.file))],
            pass_fds=[child_end.fileno(), channel.file],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            # Ctrl-C belongs to the parent, which ends its processes in order.
            start_new_session=True,
        )
    except OSError as error:
        channel.close()
        raise WorkerError(
            f"no worker process could be started ({error.strerror or explain(error)})"
        ) from error
    finally:
        child_end.close()
    return process, channel


def connect_to_parent() -> Channel:
    """Return this end of the channel, whose file descriptors are arguments of the program."""
    return Channel(Connection(int(sys.argv[1])), int(sys.argv[3]))


def keep_to(cores: Sequence[int]) -> None:
    """Pin this process to `cores`, where the system has affinity."""
    if not hasattr(os, "sched_setaffinity"):
        return
    # Each thread by itself: one that a library has started already keeps the cores it was born with.
    for task in _TASKS.iterdir():
        # A thread that a library started for a moment may be over by now.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def thread_environment(threads: int) -> dict[str, str]:
    """Return the settings that hold each thread pool to `threads` threads that do not spin."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        "GOMP_SPINCOUNT": "0",
    }


def describe_exit(code: int) -> str:
    """Return how a process ended, from its return code."""
    if code == -signal.SIGKILL:
        return "signal SIGKILL, which is also what the system sends when memory runs out"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
