"""Multiply-accumulates by executed precision, from oneDNN's log of the primitives it executed.

A compiled package calls its kernels without PyTorch's dispatcher, so only they can say what ran. The INT8
kernels that Inductor calls are oneDNN's.
Source: oneDNN, "Verbose Mode", https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import IO

import torch

from quant_explorer.core.contracts import Batch
from quant_explorer.core.measurement import Executed

OTHERS = "not oneDNN"
_STDOUT = 1
_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "s8": "int8", "u8": "int8"}
_OPERAND = re.compile(r"(?:^| )(src|wei)[:_](\w+?):")
_DIMENSION = re.compile(r"([a-z]+)(\d+)")


def count_macs(run: Callable[[Batch], object], batch: Batch, *, total: int, precision: str) -> Executed:
    """Call `run` on `batch` (n, channels, height, width) once; counts are per image.

    `total` is what the model has. The part of it that oneDNN did not log ran elsewhere (a BLAS library,
    PyTorch's own or generated loops), in the float `precision` that the model has where it is not quantized.
    """
    with _captured_stdout() as log, torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        run(batch)
        logged, kernels = parse(_read(log))
    in_float = [kernel.split()[0].removeprefix("onednn.") for kernel in kernels if " int8 " not in kernel]
    macs = Counter({name: count // len(batch) for name, count in logged.items()})
    rest = total - macs.total()
    if rest > 0:
        macs[precision] += rest
        kernels[OTHERS] += 1
        in_float.append("what oneDNN does not compute, products of activations for instance")
    return Executed(
        macs=dict(sorted(macs.items())),
        kernels=dict(sorted(kernels.items())),
        in_float=tuple(dict.fromkeys(in_float)) if macs["int8"] else (),
    )


def parse(log: str) -> tuple[Counter[str], Counter[str]]:
    """Return multiply-accumulates by precision and calls by kernel, of a whole batch, from a verbose log."""
    macs: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for line in log.splitlines():
        fields = line.split(",")
        if not line.startswith("onednn_verbose") or "exec" not in fields:
            continue
        # operation, engine, primitive, implementation, propagation, memory, attributes, auxiliary, problem
        _, _, primitive, implementation, _, memory, _, _, problem, *_ = fields[fields.index("exec") :]
        if primitive not in _MACS:
            continue
        precision = _precision(dict(_OPERAND.findall(memory)))
        macs[precision] += _MACS[primitive](problem)
        kernels[f"onednn.{primitive} {precision} {implementation}"] += 1
    return macs, kernels


def _precision(operands: dict[str, str]) -> str:
    kinds = [_PRECISIONS.get(operands[name], operands[name]) for name in ("src", "wei")]
    # INT8 with anything else is converted to it first.
    return next((kind for kind in kinds if kind != "int8"), "int8")


def _sizes(problem: str) -> dict[str, int]:
    return {name: int(size) for name, size in _DIMENSION.findall(problem)}


def _convolution(problem: str) -> int:
    sizes = _sizes(problem)
    met = prod(sizes.get(name, 1) for name in ("od", "oh", "ow"))
    return _filter(sizes) * met


def _deconvolution(problem: str) -> int:
    sizes = _sizes(problem)
    met = prod(sizes.get(name, 1) for name in ("id", "ih", "iw"))
    return _filter(sizes) * met


def _filter(sizes: dict[str, int]) -> int:
    kernel = prod(sizes.get(name, 1) for name in ("kd", "kh", "kw"))
    return sizes["mb"] * sizes["oc"] * (sizes["ic"] // sizes.get("g", 1)) * kernel


def _inner_product(problem: str) -> int:
    return prod(_sizes(problem).values())


def _matmul(problem: str) -> int:
    left, right = ([int(size) for size in shape.split("x")] for shape in problem.split(":")[:2])
    # A batch dimension of one operand may be 1.
    batch = prod(max(pair) for pair in zip(left[:-2], right[:-2], strict=True))
    return batch * left[-2] * left[-1] * right[-1]


_MACS: dict[str, Callable[[str], int]] = {
    "convolution": _convolution,
    "deconvolution": _deconvolution,
    "inner_product": _inner_product,
    "matmul": _matmul,
}


@contextmanager
def _captured_stdout() -> Iterator[IO[bytes]]:
    """Yield a file that the process's standard output goes to: oneDNN prints from C."""
    sys.stdout.flush()
    _flush()
    kept = os.dup(_STDOUT)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDOUT)
        try:
            yield file
        finally:
            _flush()
            os.dup2(kept, _STDOUT)
            os.close(kept)


def _flush() -> None:
    ctypes.CDLL(None).fflush(None)


def _read(file: IO[bytes]) -> str:
    _flush()
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
