"""What else took the measuring cores while a round was timed, and what limits them.

A worker that is ready and does not run waits for a core that another process has: Linux counts this time
for each thread (`/proc/<pid>/task/<tid>/schedstat`, kernel documentation "Scheduler Statistics"). What the
host of a virtual machine takes is counted for each core as steal (`/proc/stat`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quant_explorer.core.measurement import Conditions
from quant_explorer.machine.cgroup import ROOT, cpu_quota, memory_limit_bytes
from quant_explorer.machine.topology import siblings_of

_STEAL = 7
# Guest time is in user time already.
_COUNTED = 8


@dataclass(frozen=True)
class Counters:
    """Totals since the system, or the processes, started; None where they cannot be read."""

    clock_ns: int
    waited_ns: int | None
    core_ticks: int | None
    stolen_ticks: int | None


def read_counters(cores: Iterable[int], pids: Iterable[int], root: Path = ROOT) -> Counters:
    """Read how long the processes `pids` waited for a core, and what was stolen from `cores`."""
    ticks = _core_ticks(set(cores), root)
    return Counters(
        clock_ns=time.monotonic_ns(),
        waited_ns=_waited_ns(pids, root),
        core_ticks=sum(sum(tick[:_COUNTED]) for tick in ticks) if ticks else None,
        stolen_ticks=sum(tick[_STEAL] for tick in ticks) if ticks else None,
    )


def describe_conditions(
    cores: Sequence[int], before: Counters, after: Counters, root: Path = ROOT
) -> Conditions:
    """Return the conditions between two readings of the same cores and processes."""
    return Conditions(
        load_average=os.getloadavg()[0],
        waiting_share=_share(before.waited_ns, after.waited_ns, after.clock_ns - before.clock_ns),
        steal_share=_share(
            before.stolen_ticks, after.stolen_ticks, (after.core_ticks or 0) - (before.core_ticks or 0)
        ),
        governors=tuple(sorted({name for core in cores if (name := _governor(core, root))})),
        siblings=siblings_of(cores, root),
        cpu_quota=cpu_quota(root),
        memory_limit_bytes=memory_limit_bytes(root),
    )


def _share(before: int | None, after: int | None, whole: int) -> float | None:
    return None if before is None or after is None or whole <= 0 else max(after - before, 0) / whole


def _waited_ns(pids: Iterable[int], root: Path) -> int | None:
    """Return the time that all threads of the processes waited; None where one cannot be read."""
    total = 0
    for pid in pids:
        try:
            threads = list((root / "proc" / str(pid) / "task").iterdir())
            total += sum(int((thread / "schedstat").read_text().split()[1]) for thread in threads)
        except (OSError, ValueError, IndexError):
            return None
    return total


def _core_ticks(cores: set[int], root: Path) -> list[list[int]]:
    try:
        lines = (root / "proc" / "stat").read_text().splitlines()
    except OSError:
        return []
    rows = (line.split() for line in lines)
    found = [row for row in rows if row and row[0].removeprefix("cpu").isdecimal()]
    return [
        [int(value) for value in row[1:]]
        for row in found
        if int(row[0].removeprefix("cpu")) in cores and len(row) > _COUNTED
    ]


def _governor(core: int, root: Path) -> str:
    path = root / "sys/devices/system/cpu" / f"cpu{core}" / "cpufreq" / "scaling_governor"
    return path.read_text().strip() if path.exists() else ""
