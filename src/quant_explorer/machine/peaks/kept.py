"""The machine's peaks, measured once and kept: on the measuring cores, as every variant is."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.errors import StorageError, explain
from quant_explorer.core.host.packages import installed_version
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import digest_of
from quant_explorer.machine.cpu import cpu_model, instruction_sets
from quant_explorer.machine.peaks.measuring import measure_peaks
from quant_explorer.machine.topology import measuring_cores

# Raised when peaks are measured in another way, so that those that were kept do not count any more.
METHOD_VERSION = 1


def measure_and_keep(threads: int, progress: Progress, folder: Path) -> Peaks:
    """Measure the peaks on `threads` cores, about 15 s, and keep them in `folder` for this machine.

    Nothing else should compute meanwhile. Raises SettingsError for more threads than cores.
    """
    peaks = measure_peaks(measuring_cores(threads), progress)
    try:
        write_atomically(peaks_file(threads, folder), msgspec.json.encode(peaks))
    except StorageError as error:
        progress.say(f"Peaks are not kept: {explain(error)}")
    return peaks


def read_peaks(threads: int, folder: Path) -> Peaks | None:
    """Return the peaks that were measured on this machine with as many threads, or None."""
    try:
        return msgspec.json.decode(peaks_file(threads, folder).read_bytes(), type=Peaks)
    except (OSError, msgspec.DecodeError):
        return None


def load_or_measure(threads: int, progress: Progress, folder: Path) -> Peaks:
    """Return the peaks that were kept in `folder`, or measure them."""
    return read_peaks(threads, folder) or measure_and_keep(threads, progress, folder)


def peaks_file(threads: int, folder: Path) -> Path:
    """Return where peaks are kept: by CPU model, instruction sets, threads and PyTorch's version."""
    key = digest_of(
        {
            "method": METHOD_VERSION,
            "cpu": cpu_model(),
            "instruction_sets": list(instruction_sets()),
            "threads": threads,
            "torch": installed_version("torch"),
        }
    )
    return folder / f"peaks-{key}.json"
