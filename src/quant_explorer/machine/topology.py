"""The cores this process may use, and which of them measure.

A number names a hardware thread, as Linux counts CPUs. Two threads of one physical core share its arithmetic
(SMT), so they never serve two workers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import floor
from pathlib import Path

from quant_explorer.core.errors import SettingsError
from quant_explorer.machine.cgroup import ROOT, cpu_quota

_CPUS = "sys/devices/system/cpu"
# The newer name first.
_SIBLINGS = ("core_cpus_list", "thread_siblings_list")


def core_numbers() -> tuple[int, ...]:
    """Return the hardware threads this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def physical_cores(root: Path = ROOT) -> tuple[tuple[int, ...], ...]:
    """Return the hardware threads this process may use of each physical core, by their lowest number."""
    usable = set(core_numbers())
    cores = {tuple(sorted(usable & {number, *_siblings(number, root)})) for number in usable}
    return tuple(sorted(cores))


def available_cores(root: Path = ROOT) -> int:
    """Return how many hardware threads can compute at a time: those there are, or fewer by a CPU quota.

    A part of a core does not count, but there is one at least.
    """
    quota = cpu_quota(root)
    usable = len(core_numbers())
    return usable if quota is None else max(1, min(usable, floor(quota)))


def explain_quota(root: Path = ROOT) -> str | None:
    """Return what a CPU quota does to measurements here, or None where there is none that binds."""
    quota = cpu_quota(root)
    if quota is None or quota >= len(core_numbers()):
        return None
    if quota < 1:
        return (
            f"the CPU quota of {quota:g} cores stops a thread for a part of each period: "
            "latencies hold under this quota only"
        )
    return f"of {len(core_numbers())} cores, the CPU quota of {quota:g} leaves {available_cores(root)}"


def measuring_cores(threads: int, root: Path = ROOT) -> tuple[int, ...]:
    """Return `threads` hardware threads, of different physical cores as long as there are.

    The highest-numbered cores come first: the lowest one serves interrupts on most machines. Raises
    SettingsError for more than `available_cores`, which a CPU quota would stop in each period.
    """
    most = available_cores(root)
    if threads > most:
        why = explain_quota(root) or "cores here"
        raise SettingsError(f"--threads {threads} is out of range. Allowed: 1 to {most} ({why}).")
    return tuple(sorted(_by_preference(physical_cores(root))[:threads]))


def siblings_of(cores: Sequence[int], root: Path = ROOT) -> tuple[int, ...]:
    """Return the other hardware threads of the physical cores of `cores`, of this process or not."""
    return tuple(sorted({sibling for core in cores for sibling in _siblings(core, root)} - set(cores)))


def idle_cores(threads: int, root: Path = ROOT) -> tuple[tuple[int, ...], ...]:
    """Return sets of `threads` hardware threads whose physical cores do not measure, nor are in two sets.

    There are no more than a CPU quota lets compute beside the measuring cores.
    """
    measuring = set(measuring_cores(threads, root))
    free = [core[-1] for core in physical_cores(root) if measuring.isdisjoint(core)]
    sets = [tuple(free[end - threads : end]) for end in range(len(free), threads - 1, -threads)]
    return tuple(sets[: available_cores(root) // threads - 1])


def _by_preference(cores: Sequence[tuple[int, ...]]) -> list[int]:
    """Return one thread of each core, the last core first, then a second one of each, and so on."""
    most = max(len(core) for core in cores)
    return [core[-1 - turn] for turn in range(most) for core in reversed(cores) if turn < len(core)]


def _siblings(number: int, root: Path) -> set[int]:
    for name in _SIBLINGS:
        path = root / _CPUS / f"cpu{number}" / "topology" / name
        if path.exists():
            return _parse_list(path.read_text())
    return set()


def _parse_list(text: str) -> set[int]:
    """Read numbers as Linux lists them: 0-1,4."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers
