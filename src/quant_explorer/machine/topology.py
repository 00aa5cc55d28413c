"""The cores this process may use, and which of them measure."""

from __future__ import annotations

import os

from quant_explorer.core.errors import SettingsError


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(core_numbers())


def core_numbers() -> tuple[int, ...]:
    """Return the cores this process may use, in order."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def measuring_cores(threads: int) -> tuple[int, ...]:
    """Return the `threads` highest-numbered cores: the lowest one serves interrupts on most machines.

    Raises SettingsError when there are fewer cores than that.
    """
    cores = core_numbers()
    if threads > len(cores):
        raise SettingsError(f"--threads {threads} is out of range. Allowed: 1 to {len(cores)} (cores here).")
    return cores[-threads:]


def idle_cores(threads: int) -> tuple[tuple[int, ...], ...]:
    """Return the cores that are no measuring cores, in sets of `threads`."""
    cores = core_numbers()[:-threads]
    return tuple(cores[end - threads : end] for end in range(len(cores), threads - 1, -threads))
