"""What this machine is, what its libraries and instruction sets can do, and what INT8 will be worth."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from quant_explorer.core.contracts import Runtime
from quant_explorer.core.cost.counts import BYTES_PER_ELEMENT
from quant_explorer.core.cost.roofline import BANDWIDTH, Peaks, ridge_macs_per_byte
from quant_explorer.core.errors import QuantExplorerError, UnsupportedError, explain
from quant_explorer.core.host.architecture import HALF_PRECISIONS, has_arithmetic
from quant_explorer.core.host.packages import installed_version
from quant_explorer.core.progress import Progress
from quant_explorer.core.units import format_mb
from quant_explorer.datasets.cache import default_cache_dir
from quant_explorer.datasets.kept import LIMIT_VARIABLE, limit_bytes, list_kept
from quant_explorer.machine.cgroup import memory_limit_bytes
from quant_explorer.machine.cpu import cpu_model, instruction_sets
from quant_explorer.machine.memory import ResidentMemory, available_bytes, total_bytes
from quant_explorer.machine.topology import available_cores, explain_quota, measuring_cores, physical_cores
from quant_explorer.pipeline.doctor.int8_speed import (
    IMAGE_SHAPE,
    MODEL,
    PAIRS_OF_BLOCKS,
    Int8Speed,
    measure_int8_speed,
)
from quant_explorer.pipeline.measure import LEAST_STATIC_INT8_FRACTION

logger = logging.getLogger(__name__)

_PACKAGES = (
    *("quant-explorer", "torch", "torchvision", "torchao", "onnxruntime", "onnx", "openvino", "nncf"),
    *("executorch", "numpy", "scipy", "moocore", "mlxtend"),
)
_INT8_DOT_PRODUCTS = {
    "amx_int8": "tiles of INT8 products",
    "avx512_vnni": "four INT8 products added in one instruction, 512 bits wide",
    "avx_vnni": "four INT8 products added in one instruction, 256 bits wide",
    "i8mm": "INT8 matrix products",
    "asimddp": "INT8 dot products",
}


@dataclass(frozen=True)
class Fact:
    """One thing found, and why it matters."""

    what: str
    finding: str
    why: str = ""


def examine(runtimes: Mapping[str, type[Runtime]]) -> tuple[Fact, ...]:
    """Return what was found on this machine, and which of `runtimes` are available."""
    return tuple(_facts(runtimes))


def _facts(runtimes: Mapping[str, type[Runtime]]) -> Iterator[Fact]:
    yield Fact("CPU", cpu_model())
    yield Fact("instruction sets", ", ".join(instruction_sets()) or "none known")
    yield Fact("cores", str(available_cores()), explain_quota() or "hardware threads this process may use")
    yield Fact("physical cores", str(len(physical_cores())), "two workers never share one")
    limited = ", the limit of a control group" if memory_limit_bytes() == total_bytes() else ""
    available = f"{format_mb(available_bytes())} MB available{limited}"
    yield Fact("memory", f"{format_mb(total_bytes())} MB", available)
    cache = default_cache_dir()
    kept_mb = format_mb(sum(kept.bytes for kept in list_kept(cache)))
    yield Fact(
        "decoded images",
        f"{kept_mb} of {format_mb(limit_bytes())} MB in {cache}",
        f"`quant-explorer clean` removes them, {LIMIT_VARIABLE} sets the limit",
    )
    for package in _PACKAGES:
        yield Fact(f"version of {package}", installed_version(package) or "not installed")
    for name, runtime in runtimes.items():
        reason = runtime().unavailable()
        yield Fact(f"runtime {name}", "not available" if reason else "available", reason or "")
    yield from _engines()
    yield from _arithmetic()
    reason = ResidentMemory().unavailable()
    yield Fact("peak memory", "not measurable" if reason else "measurable", reason or "")


def _engines() -> Iterator[Fact]:
    import torch

    from quant_explorer.runtimes.eager.runtime import explain_missing_int8, select_engine

    missing = explain_missing_int8()
    if missing:
        yield Fact("quantized engines", "not available", missing)
        return
    from quant_explorer.runtimes.torch_graph.engine import FULL_ACTIVATION_BITS, activation_bits

    chosen = select_engine("")
    for engine in torch.backends.quantized.supported_engines:
        if engine == "none":
            continue
        bits, reason = activation_bits(engine)
        default = " (default)" if engine == chosen else ""
        exact = "extreme values come out exact" if bits == FULL_ACTIVATION_BITS else reason or ""
        yield Fact(f"engine {engine}{default}", f"{bits}-bit activations", exact)


def _arithmetic() -> Iterator[Fact]:
    found = instruction_sets()
    dots = [f"{name}: {what}" for name, what in _INT8_DOT_PRODUCTS.items() if name in found]
    yield Fact(
        "INT8 dot products",
        "in hardware" if dots else "none",
        "; ".join(dots) or "pairs of products are added in 16 bits, which can overflow",
    )
    for precision in HALF_PRECISIONS:
        native = has_arithmetic(precision, found)
        why = "" if native else "products are computed in FP32, with conversions around them"
        yield Fact(f"{precision.upper()} arithmetic", "in hardware" if native else "none", why)


def expect_int8(runtimes: Mapping[str, type[Runtime]], threads: int, progress: Progress) -> tuple[Fact, ...]:
    """Measure how fast INT8 is beside FP32 in each runtime, and return a fact for each.

    What is not possible, or fails, is a fact with its reason. Nothing else should compute meanwhile. Raises
    SettingsError for more threads than cores.
    """
    measuring_cores(threads)
    facts = [_describe_measurement(threads)]
    with progress.task("Measuring INT8", len(runtimes)) as bar:
        for name, runtime in runtimes.items():
            bar.advance(0, name)
            facts.append(Fact(f"INT8 on {name}", *_find_int8(runtime(), threads)))
            bar.advance()
    return tuple(facts)


def _describe_measurement(threads: int) -> Fact:
    return Fact(
        "INT8 against FP32",
        "a short measurement of one small network",
        f"{MODEL} untrained, {' x '.join(map(str, IMAGE_SHAPE))}, batch 1, {threads} pinned core(s), one "
        f"process a precision, 95 % intervals over {PAIRS_OF_BLOCKS} pairs of blocks; other models differ; "
        f"load average before it {os.getloadavg()[0]:.2f}",
    )


def _find_int8(runtime: Runtime, threads: int) -> tuple[str, str]:
    """Return what was found of one runtime, and why it is so."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _describe_int8(measure_int8_speed(runtime, threads, Path(folder)))
    except UnsupportedError as error:
        return "not possible", explain(error)
    except QuantExplorerError as error:
        return "failed", explain(error)
    except Exception as error:
        # A library that cannot work on this machine is what the doctor is asked about.
        logger.exception("INT8 on %s failed", runtime.name)
        return "failed", f"{explain(error)} (-v shows the traceback)"


def _describe_int8(found: Int8Speed) -> tuple[str, str]:
    share = f"{found.int8_fraction:.0%} of the multiply-accumulates ran in INT8"
    if found.int8_fraction <= LEAST_STATIC_INT8_FRACTION:
        return "failed", f"{share}, more than {LEAST_STATIC_INT8_FRACTION:.0%} is required"
    times = f"{found.speedup:.2g} times as fast as FP32 [{found.interval.low:.2g}, {found.interval.high:.2g}]"
    if found.interval.contains(1.0):
        times = f"not known to be faster or slower: {times}"
    elif found.speedup < 1:
        times = f"slower: {times}"
    why = [f"{share}, {found.granularity} weights"]
    if found.lowering.needs:
        why.append(f"holds for CPUs with {', '.join(found.lowering.needs)} only")
    return times, "; ".join((*why, *found.lowering.notes))


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
