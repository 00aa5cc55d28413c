from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quant_explorer.machine.conditions import describe_conditions, read_counters
from quant_explorer.machine.process import keep_to
from quant_explorer.machine.topology import core_numbers
from tests.machine.systems import write, write_cgroup, write_topology

SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""


def made_up(root: Path, *, stolen: int, waited_ns: int) -> Path:
    write(
        root, "proc/stat", f"cpu  9 9\ncpu0 5 0 0 5 0 0 0 0 0 0\ncpu1 60 0 20 20 0 0 0 {stolen} 7 0\nintr 1\n"
    )
    write(root, "proc/12/task/12/schedstat", f"500 {waited_ns} 3\n")
    write(root, "proc/12/task/13/schedstat", "500 1000 3\n")
    return root


def test_what_others_took_is_a_share_of_the_time(tmp_path: Path) -> None:
    root = made_up(tmp_path, stolen=0, waited_ns=0)
    write_cgroup(root, "/box", {"cpu.max": "150000 100000", "memory.max": "1000"})
    write_topology(root, {0: "0", 1: "1,3", 3: "1,3"})
    write(root, "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n")
    before = read_counters((1,), (12,), root)
    time.sleep(0.001)
    made_up(root, stolen=25, waited_ns=10_000_000_000)
    after = read_counters((1,), (12,), root)
    found = describe_conditions((1,), before, after, root)
    # Steal counts against all of the core's ticks, of which 25 are new: all were stolen.
    assert found.steal_share == 1.0
    assert found.waiting_share == 10_000_000_000 / (after.clock_ns - before.clock_ns)
    assert (found.governors, found.siblings) == (("powersave",), (3,))
    assert (found.cpu_quota, found.memory_limit_bytes) == (1.5, 1000)


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    before = read_counters((0,), (12,), tmp_path)
    found = describe_conditions((0,), before, read_counters((0,), (12,), tmp_path), tmp_path)
    assert (found.waiting_share, found.steal_share, found.governors) == (None, None, ())
    assert found.taken_share == 0.0


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel keeps no schedstat")
def test_a_process_on_the_same_core_is_seen() -> None:
    core = core_numbers()[-1]
    usable = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", SPIN, str(core)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            keep_to((core,))
            before = read_counters((core,), (os.getpid(),))
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                pass
            found = describe_conditions((core,), before, read_counters((core,), (os.getpid(),)))
        finally:
            os.sched_setaffinity(0, usable)
            other.kill()
    assert found.waiting_share is not None
    assert found.waiting_share > 0.2
