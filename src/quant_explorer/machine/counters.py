"""Energy of the CPU packages from RAPL's counters, where the kernel lets us read them.

Linux shows them below /sys/class/powercap as `intel-rapl:N` (AMD's too): `name`, `energy_uj` in
microjoules, and `max_energy_range_uj`, after which the counter starts at 0 again (Linux kernel
documentation, "Power Capping Framework"). Since 2020 only root may read `energy_uj` (CVE-2020-8694), and
virtual machines have none.

A package's counter covers everything that runs on it. Nothing is subtracted for an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quant_explorer.core.energy import EnergyBlock
from quant_explorer.core.errors import UnsupportedError, require_supported

POWERCAP = Path("/sys/class/powercap")
# The counters move about once a millisecond.
MIN_BLOCK_S = 0.5
BLOCKS = 10


@dataclass(frozen=True)
class Package:
    """The counter of one CPU package: its folder, and the energy in microjoules at which it starts again."""

    folder: Path
    range_uj: int

    def read_uj(self) -> int:
        """Return the counter; raises OSError where it may not be read."""
        return int((self.folder / "energy_uj").read_text())


def unavailable(root: Path = POWERCAP) -> str | None:
    """Return why energy cannot be measured here, or None."""
    try:
        packages = find_packages(root)
        for package in packages:
            package.read_uj()
    except PermissionError as error:
        return f"{error.filename} may only be read by root"
    except (OSError, ValueError) as error:
        return f"the energy counters below {root} cannot be read ({error})"
    return None if packages else f"no energy counter of a CPU package below {root} (RAPL)"


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


def measure_energy(
    run: Callable[[], object],
    *,
    blocks: int = BLOCKS,
    min_block_s: float = MIN_BLOCK_S,
    root: Path = POWERCAP,
) -> tuple[EnergyBlock, ...]:
    """Return calls, duration and energy of `blocks` blocks of calls, each at least `min_block_s` long.

    Raw values: `core/energy.py:energy_per_call` gives the median and its interval. Raises
    UnsupportedError where there is no counter to read, or when one did not move during a block.
    """
    require_supported(unavailable(root))
    packages = find_packages(root)
    run()
    return tuple(_measure_block(run, packages, min_block_s) for _ in range(blocks))


def _measure_block(run: Callable[[], object], packages: Sequence[Package], min_block_s: float) -> EnergyBlock:
    before = [package.read_uj() for package in packages]
    start = time.perf_counter()
    calls, elapsed = 0, 0.0
    while not calls or elapsed < min_block_s:
        run()
        calls += 1
        elapsed = time.perf_counter() - start
    used_uj = sum(
        difference_uj(earlier, package.read_uj(), package.range_uj)
        for earlier, package in zip(before, packages, strict=True)
    )
    if not used_uj:
        raise UnsupportedError(f"the energy counters did not move in {elapsed:.2g} s")
    return EnergyBlock(calls, elapsed, used_uj / 1e6)
