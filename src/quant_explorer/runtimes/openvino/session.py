"""An OpenVINO model on the CPU: one stream, one request, compiled for the number of images it is given.

Source: OpenVINO, "CPU device" and "High-level performance hints",
https://docs.openvino.ai/2025/openvino-workflow/running-inference.html. A fixed shape runs 5 to 15 % faster
than a free one on a small network, and a tensor that the request owns spares its Python wrapper's work.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as operations

from quant_explorer.core.contracts import Batch
from quant_explorer.core.measurement import Executed
from quant_explorer.runtimes.openvino.macs import count_macs

DEVICE = "CPU"
# The precision of what is not quantized. Without the hint, a CPU with BF16 would run FP32 models in BF16.
_HALF_HINTS = {"fp16": "f16", "bf16": "bf16"}
_CAPABILITIES = {"fp16": "FP16", "bf16": "BF16"}


@functools.cache
def _core() -> openvino.Core:
    return openvino.Core()


def load_plugin(threads: int) -> None:
    """Load the CPU plugin and set its threads; who pins them is the process, by its affinity."""
    _core().set_property(
        DEVICE,
        {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        },
    )


def computes_natively(precision: str) -> bool:
    """Say whether this CPU has instructions for a half precision, according to the plugin."""
    return _CAPABILITIES[precision] in _core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


@functools.cache
def has_kernels(precision: str) -> bool:
    """Say whether the plugin computes in a half precision here, natively or not, when it is asked to.

    It silently replaces a precision that it does not have: found by compiling a convolution.
    """
    images = operations.parameter((1, 8, 8, 8), np.float32)
    filters = operations.constant(np.ones((8, 8, 3, 3), np.float32))
    maps = operations.convolution(images, filters, [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([operations.result(maps)], [images])
    hint = _HALF_HINTS[precision]
    try:
        compiled = _core().compile_model(model, DEVICE, {"INFERENCE_PRECISION_HINT": hint})
    except RuntimeError:
        # As where ONEDNN_MAX_CPU_ISA hides from the kernels what the plugin sees.
        return False
    return _inference_precision(compiled) == hint


def _inference_precision(compiled: openvino.CompiledModel) -> str:
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())


def _hint(precision: str) -> str:
    return _HALF_HINTS[precision] if precision in _HALF_HINTS and has_kernels(precision) else "f32"


@dataclass(frozen=True)
class _Compiled:
    """A model for `images.shape`. The request's own memory: it reads `images` and writes `logits`."""

    model: openvino.CompiledModel
    request: openvino.InferRequest
    images: Batch
    logits: Batch


class OpenVinoSession:
    """One model from its file. It holds one compiled form: another number of images compiles again."""

    def __init__(self, path: Path, precision: str) -> None:
        """Read the model; `precision` is that of what is not quantized."""
        self._path = path
        self._hint = _hint(precision)
        self._compiled: _Compiled | None = None
        _core().read_model(path)

    def run(self, batch: Batch) -> Batch:
        """Map float32 images (n, channels, height, width) to float32 logits (n, classes)."""
        compiled = self._compiled
        if compiled is None or compiled.images.shape != batch.shape:
            compiled = self._compile(batch.shape)
        np.copyto(compiled.images, batch)
        compiled.request.infer(share_outputs=True)
        return compiled.logits.copy()

    def executed(self, batch: Batch) -> Executed:
        """Count the multiply-accumulates of the graph that the plugin executes, by its kernels' precision."""
        self.run(batch)
        assert self._compiled is not None
        return count_macs(self._compiled.model, self._read(batch.shape))

    def _compile(self, shape: tuple[int, ...]) -> _Compiled:
        # Before, not after: two forms of a large model in memory are one too many.
        self._compiled = None
        hint = {"INFERENCE_PRECISION_HINT": self._hint}
        compiled = _core().compile_model(self._read(shape), DEVICE, hint)
        request = compiled.create_infer_request()
        images, logits = request.get_input_tensor().data, request.get_output_tensor().data
        self._compiled = _Compiled(compiled, request, images, logits)
        return self._compiled

    def _read(self, shape: tuple[int, ...]) -> openvino.Model:
        model = _core().read_model(self._path)
        model.reshape(shape)
        return model
