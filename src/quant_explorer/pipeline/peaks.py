"""The machine's peaks, measured once and kept: on the measuring cores, as every variant is."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.cost import BYTES_PER_ELEMENT
from quant_explorer.core.errors import StorageError, explain
from quant_explorer.core.packages import installed_version
from quant_explorer.core.progress import Progress
from quant_explorer.core.recipe import digest_of
from quant_explorer.core.roofline import BANDWIDTH, Peaks, ridge_macs_per_byte
from quant_explorer.datasets.cache import default_cache_dir
from quant_explorer.hardware import peaks as machine
from quant_explorer.pipeline.doctor import Fact
from quant_explorer.pipeline.environment import (
    cpu_model,
    instruction_sets,
    measuring_cores,
    thread_environment,
)

# Raised when peaks are measured in another way, so that those that were kept do not count any more.
METHOD_VERSION = 1


def measure_peaks(threads: int, progress: Progress, *, cache_dir: Path | None = None) -> Peaks:
    """Measure the peaks on `threads` cores, about 15 s, and keep them for this machine.

    Nothing else should compute meanwhile. Raises SettingsError for more threads than cores.
    """
    peaks = machine.measure_peaks(measuring_cores(threads), thread_environment(threads), progress)
    try:
        write_atomically(peaks_file(threads, cache_dir), msgspec.json.encode(peaks))
    except StorageError as error:
        progress.say(f"Peaks are not kept: {explain(error)}")
    return peaks


def read_peaks(threads: int, *, cache_dir: Path | None = None) -> Peaks | None:
    """Return the peaks that were measured on this machine with as many threads, or None."""
    try:
        return msgspec.json.decode(peaks_file(threads, cache_dir).read_bytes(), type=Peaks)
    except (OSError, msgspec.DecodeError):
        return None


def load_or_measure(threads: int, progress: Progress, *, cache_dir: Path | None = None) -> Peaks:
    """Return the peaks that were kept, or measure them."""
    return read_peaks(threads, cache_dir=cache_dir) or measure_peaks(threads, progress, cache_dir=cache_dir)


def peaks_file(threads: int, cache_dir: Path | None = None) -> Path:
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
    return (cache_dir or default_cache_dir()) / f"peaks-{key}.json"


def describe_peaks(peaks: Peaks) -> tuple[Fact, ...]:
    """Return the peaks as facts of the machine, each precision beside FP32."""
    threads = f"{peaks.threads} thread{'s' * (peaks.threads > 1)}"
    return (
        Fact("memory bandwidth", f"{peaks.gb_per_s:,.1f} GB/s", f"{_source(BANDWIDTH, peaks)}; {threads}"),
        *(_describe_peak(precision, peaks) for precision in BYTES_PER_ELEMENT),
    )


def _describe_peak(precision: str, peaks: Peaks) -> Fact:
    peak, reference = peaks.gmacs_per_s.get(precision), peaks.gmacs_per_s.get("fp32")
    if peak is None:
        return Fact(f"peak {precision}", "none", peaks.reasons.get(precision, "not measured"))
    ridge = ridge_macs_per_byte(peak, peaks.gb_per_s)
    why = f"{_source(precision, peaks)}; memory binds below {ridge:.2g} MAC/byte"
    if reference is not None and precision != "fp32":
        why += f"; {peak / reference:.2g} x fp32"
    return Fact(f"peak {precision}", f"{peak:,.1f} GMAC/s", why)


def _source(name: str, peaks: Peaks) -> str:
    return "given, not measured" if name in peaks.overrides else peaks.kernels.get(name, "measured")
