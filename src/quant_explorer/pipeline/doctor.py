"""What this machine is, and which engines and precisions will be fast on it, with the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from quant_explorer.core.packages import installed_version
from quant_explorer.core.units import format_mb
from quant_explorer.metrics import memory
from quant_explorer.pipeline.environment import (
    available_cores,
    cpu_model,
    has_bfloat16,
    instruction_sets,
)
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
_FLOAT16 = {"avx512_fp16", "asimdhp"}


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
    yield Fact("cores", str(available_cores()), "cores this process may use")
    total = psutil.virtual_memory()
    yield Fact("memory", f"{format_mb(total.total)} MB", f"{format_mb(total.available)} MB available")
    for package in _PACKAGES:
        yield Fact(f"version of {package}", installed_version(package) or "not installed")
    for name, runtime in RUNTIMES.items():
        reason = runtime().unavailable()
        yield Fact(f"runtime {name}", "not available" if reason else "available", reason or "")
    yield from _engines()
    yield from _precisions()
    reason = memory.unavailable()
    yield Fact("peak memory", "not measurable" if reason else "measurable", reason or "")


def _engines() -> Iterator[Fact]:
    import torch

    from quant_explorer.runtimes.eager import select_engine
    from quant_explorer.runtimes.torch_engine import FULL_ACTIVATION_BITS, activation_bits

    chosen = select_engine("")
    for engine in torch.backends.quantized.supported_engines:
        if engine == "none":
            continue
        bits, reason = activation_bits(engine)
        default = " (default)" if engine == chosen else ""
        exact = "extreme values come out exact" if bits == FULL_ACTIVATION_BITS else reason or ""
        yield Fact(f"engine {engine}{default}", f"{bits}-bit activations", exact)


def _precisions() -> Iterator[Fact]:
    found = set(instruction_sets())
    dots = [f"{name}: {why}" for name, why in _INT8_DOT_PRODUCTS.items() if name in found]
    if dots:
        yield Fact("INT8", "fast", "; ".join(dots))
    else:
        yield Fact("INT8", "smaller, hardly faster", "the CPU has no INT8 dot product instruction")
    if has_bfloat16():
        yield Fact("BF16", "fast", "the CPU multiplies bfloat16 in hardware")
    else:
        yield Fact("BF16", "slow", "the CPU has no bfloat16 instructions: products are emulated in FP32")
    if _FLOAT16 & found:
        yield Fact("FP16", "fast", "the CPU multiplies float16 in hardware")
    else:
        yield Fact("FP16", "slow", "the CPU only converts float16: products are emulated in FP32")
