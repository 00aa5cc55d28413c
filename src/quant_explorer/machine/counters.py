"""Energy counters of the CPU packages (RAPL), where the kernel lets us read them.

Linux shows them below /sys/class/powercap as `intel-rapl:N` (AMD's too): `name`, `energy_uj` in
microjoules, and `max_energy_range_uj`, after which the counter starts at 0 again (Linux kernel
documentation, "Power Capping Framework"). Since 2020 only root may read `energy_uj` (CVE-2020-8694), and
virtual machines have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quant_explorer.core.errors import explain

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Package:
    """The counter of one CPU package: its folder, and the energy in microjoules at which it starts again."""

    folder: Path
    range_uj: int

    def read_uj(self) -> int:
        """Return the counter; raises OSError where it may not be read."""
        return int((self.folder / "energy_uj").read_text())


@dataclass(frozen=True)
class PackageCounters:
    """The counters of all packages; see `metrics/energy.py`."""

    packages: tuple[Package, ...]

    def read(self) -> tuple[int, ...]:
        """Return the counters in microjoules; raises OSError where one may not be read."""
        return tuple(package.read_uj() for package in self.packages)

    def joules_since(self, before: tuple[int, ...]) -> float:
        """Return the energy since the reading `before`, all packages together."""
        used_uj = sum(
            difference_uj(earlier, now, package.range_uj)
            for package, earlier, now in zip(self.packages, before, self.read(), strict=True)
        )
        return used_uj / 1e6


def unavailable(root: Path = POWERCAP) -> str | None:
    """Return why energy cannot be measured here, or None."""
    try:
        counters = PackageCounters(find_packages(root))
        counters.read()
    except PermissionError as error:
        return f"{error.filename} may only be read by root"
    except (OSError, ValueError) as error:
        return f"the energy counters below {root} cannot be read ({explain(error)})"
    return None if counters.packages else f"no energy counter of a CPU package below {root} (RAPL)"


def find_packages(root: Path = POWERCAP) -> tuple[Package, ...]:
    """Return the packages; their parts (cores, memory) are in them, and `psys` holds them, so neither counts.

    Raises OSError or ValueError for a counter that cannot be read.
    """
    folders = sorted(root.glob("intel-rapl:*"))
    return tuple(
        Package(folder, int((folder / "max_energy_range_uj").read_text()))
        for folder in folders
        if (folder / "name").read_text().startswith("package")
    )


def difference_uj(before: int, after: int, range_uj: int) -> int:
    """Return the energy between two readings, between which the counter started again at most once.

    The range of the usual counters is 262 kJ: 44 minutes at 100 W.
    """
    return after - before if after >= before else after - before + range_uj
