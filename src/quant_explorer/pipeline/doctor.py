"""What this machine is, and what its libraries and instruction sets can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quant_explorer.core.architecture import HALF_PRECISIONS, has_arithmetic
from quant_explorer.core.cost import BYTES_PER_ELEMENT
from quant_explorer.core.packages import installed_version
from quant_explorer.core.roofline import BANDWIDTH, Peaks, ridge_macs_per_byte
from quant_explorer.core.units import format_mb
from quant_explorer.machine.cgroup import memory_limit_bytes
from quant_explorer.machine.cpu import cpu_model, instruction_sets
from quant_explorer.machine.memory import ResidentMemory, available_bytes, total_bytes
from quant_explorer.machine.topology import available_cores, explain_quota, physical_cores
from quant_explorer.runtimes import RUNTIMES

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


def examine() -> tuple[Fact, ...]:
    """Return what was found on this machine."""
    return tuple(_facts())


def _facts() -> Iterator[Fact]:
    yield Fact("CPU", cpu_model())
    yield Fact("instruction sets", ", ".join(instruction_sets()) or "none known")
    yield Fact("cores", str(available_cores()), explain_quota() or "hardware threads this process may use")
    yield Fact("physical cores", str(len(physical_cores())), "two workers never share one")
    limited = ", the limit of a control group" if memory_limit_bytes() == total_bytes() else ""
    available = f"{format_mb(available_bytes())} MB available{limited}"
    yield Fact("memory", f"{format_mb(total_bytes())} MB", available)
    for package in _PACKAGES:
        yield Fact(f"version of {package}", installed_version(package) or "not installed")
    for name, runtime in RUNTIMES.items():
        reason = runtime().unavailable()
        yield Fact(f"runtime {name}", "not available" if reason else "available", reason or "")
    yield from _engines()
    yield from _arithmetic()
    reason = ResidentMemory().unavailable()
    yield Fact("peak memory", "not measurable" if reason else "measurable", reason or "")


def _engines() -> Iterator[Fact]:
    import torch

    from quant_explorer.runtimes.eager import select_engine
    from quant_explorer.runtimes.fx import FULL_ACTIVATION_BITS, activation_bits

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
