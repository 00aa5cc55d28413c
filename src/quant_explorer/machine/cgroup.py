"""What the control groups of this process leave it of memory and CPU time; versions 1 and 2.

A group's limit binds all below it, so the smallest from this process's group upwards counts (Linux kernel
documentation, "Control Group v2"; of version 1 "Memory Resource Controller" and "CFS Bandwidth Control"). A
set of CPUs (cpuset) needs no reading: affinity is within it. What cannot be read limits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
# Version 1 writes the largest whole number of pages for "no limit".
_UNLIMITED_BYTES = 1 << 62
# Files of limit and usage, and the field of memory.stat for pages of files that nobody used lately.
_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """Return how much memory this process and its kin may hold, or None without a limit."""
    return min((limit for limit, _ in _memory(root)), default=None)


def free_memory_bytes(root: Path = ROOT) -> int | None:
    """Return what is left below the limits, or None without a limit.

    Cached pages of files count as free unless they were used lately, as in Linux's MemAvailable.
    """
    return min((max(limit - used, 0) for limit, used in _memory(root)), default=None)


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many cores' time this process and its kin may take, such as 1.5; None without a limit."""
    return min(_quotas(root), default=None)


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and usage of each group that has a limit."""
    for group in _groups("memory", root):
        for limit_file, usage_file, cached in _MEMORY:
            limit = _read_number(group / limit_file)
            if limit is not None and limit < _UNLIMITED_BYTES:
                usage = _read_number(group / usage_file) or 0
                yield limit, usage - _read_field(group / "memory.stat", cached)


def _quotas(root: Path) -> Iterator[float]:
    for group in _groups("cpu", root):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)
        quota_us = _read_number(group / "cpu.cfs_quota_us")
        period_us = _read_number(group / "cpu.cfs_period_us")
        if quota_us and period_us:
            yield quota_us / period_us


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups that may hold `controller`, its own first."""
    paths: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mounted, _, system = line.partition(" - ")
        shown, point = mounted.split()[3:5]
        kind, _, options = system.split(" ", 2)
        # Version 2 has one hierarchy for all controllers, which has no name.
        name = "" if kind == "cgroup2" else controller
        if name in paths and (kind == "cgroup2" or (kind == "cgroup" and name in options.split(","))):
            yield from _upwards(root / point.lstrip("/"), paths[name], shown)


def _upwards(mount: Path, path: str, shown: str) -> Iterator[Path]:
    """Yield the group `path` and those above it; the folder `mount` shows the hierarchy from `shown` on."""
    own = PurePosixPath(path)
    # In a container, this process's group can lie outside of what is mounted.
    inside = own.is_relative_to(shown) and ".." not in own.parts
    below = own.relative_to(shown) if inside else PurePosixPath()
    for group in (below, *below.parents):
        yield mount / group


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _read_number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdecimal() else None


def _read_field(path: Path, field: str) -> int:
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == field and value.isdecimal():
            return int(value)
    return 0
