"""Memory: what there is for this process, and what it holds.

Linux keeps the high-water mark of resident memory in /proc/self/status (VmHWM) and resets it when "5" is
written to /proc/self/clear_refs (proc(5)).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from quant_explorer.core.errors import explain
from quant_explorer.machine.cgroup import ROOT, free_memory_bytes, memory_limit_bytes


def total_bytes(root: Path = ROOT) -> int:
    """Return the machine's memory in bytes, or the limit of this process's control groups below it."""
    total, limit = psutil.virtual_memory().total, memory_limit_bytes(root)
    return total if limit is None else min(total, limit)


def available_bytes(root: Path = ROOT) -> int:
    """Return how many bytes processes can take now without swapping or being killed."""
    available, free = psutil.virtual_memory().available, free_memory_bytes(root)
    return available if free is None else min(available, free)


@dataclass(frozen=True)
class ResidentMemory:
    """Resident memory of this process: now, and its high-water mark since the last reset."""

    process: Path = Path("/proc/self")

    def unavailable(self) -> str | None:
        """Return why the mark cannot be read and reset here, or None."""
        try:
            self.reset_peak()
            self.read_peak_bytes()
        except (OSError, ValueError) as error:
            return (
                "the kernel does not offer a resettable high-water mark of resident memory "
                f"({explain(error)})"
            )
        return None

    def read_bytes(self) -> int:
        """Return the resident memory of this process in bytes; raises OSError or ValueError."""
        return self._read("VmRSS")

    def read_peak_bytes(self) -> int:
        """Return the high-water mark since the last reset, in bytes; raises OSError or ValueError."""
        return self._read("VmHWM")

    def reset_peak(self) -> None:
        """Set the high-water mark to the present resident memory; raises OSError."""
        (self.process / "clear_refs").write_text("5")

    def _read(self, field: str) -> int:
        status = self.process / "status"
        match = re.search(rf"^{field}:\s+(\d+) kB$", status.read_text(), flags=re.MULTILINE)
        if match is None:
            raise ValueError(f"{status} has no {field}")
        return int(match[1]) * 1024
