"""A runtime in NumPy alone that fails on demand, to test what happens to a variant that does.

The failure happens in a real worker process: pass the class where runtimes are looked up, and choose
the `fault` by the recipe's options. It is honest without one: FP32 and static INT8 of a linear layer.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch, Candidate, Lowering
from quant_explorer.core.measurement import Executed

Fault = Literal[
    "", "hang", "hang_loading", "die", "memory", "raise", "nan", "wrong_shape", "float_named_int8", "slow"
]
SLOW_CALL_S: Final = 0.05
_LITTLE_MEMORY: Final = 1 << 24
_FILE: Final = "linear.npz"
_WEIGHT_LEVELS: Final = 127.5
_ACTIVATION_LEVELS: Final = 255


@dataclass(frozen=True)
class FakeRuntime:
    """The last linear layer of a model, applied to the flattened image (cut or repeated to fit it).

    For a model of Flatten and Linear that is the model itself. `fault` is what a session does from its
    call number `fault_after` on: "hang" (sleeps for an hour), "die" (kills its process), "memory" (asks for
    more than there is), "raise" (RuntimeError), "nan" and "wrong_shape" (outputs), "slow" (50 ms a call).
    "hang_loading" sleeps before any call, when its libraries are loaded. With "float_named_int8" an INT8
    artifact runs in float, and says so when it is asked.
    """

    fault: Fault = ""
    fault_after: int = 0
    name: ClassVar[str] = "fake"
    version: ClassVar[int] = 1

    def unavailable(self) -> str | None:
        """NumPy is always there."""
        return None

    def unsupported(self, candidate: Candidate) -> str | None:
        """FP32 and calibrated static INT8, of a model with a linear layer."""
        from torch import nn

        spec = candidate.spec
        if not any(isinstance(module, nn.Linear) for module in candidate.model.modules()):
            return "the model has no nn.Linear layer, and fake runs nothing else"
        if spec.precision == "fp32":
            return None
        if spec.precision != "int8" or spec.activations != "static" or spec.activation_ranges:
            return f"fake lowers fp32 and calibrated static int8, not {spec.activations} {spec.precision}"
        return None

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """Nothing, of a linear layer."""
        return {}

    def cpu_features(self) -> tuple[str, ...]:
        """NumPy computes the same on every CPU."""
        return ()

    def versions(self) -> dict[str, str]:
        """Return NumPy's version."""
        return {"numpy": np.__version__}

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Write the linear layer, with its scales when the spec is INT8."""
        weight, bias = _last_linear(candidate)
        arrays: dict[str, NDArray[np.generic]] = {"weight": weight, "bias": bias}
        if candidate.spec.precision == "int8" and self.fault != "float_named_int8":
            features = np.concatenate([_features(batch, weight.shape[1]) for batch in calibration])
            axis = 1 if candidate.spec.granularity == "per_channel" else None
            weight_scale = np.abs(weight).max(axis=axis, keepdims=True) / _WEIGHT_LEVELS
            arrays = {
                "weight": np.clip(np.rint(weight / weight_scale), -128, 127).astype(np.int8),
                "weight_scale": weight_scale,
                "bias": bias,
                "input": _affine(features),
                "output": _affine(features @ weight.T + bias),
            }
        np.savez(folder / _FILE, allow_pickle=False, **arrays)
        return Lowering(notes=(), options=(("fault", self.fault), ("fault_after", self.fault_after)))

    def load_libraries(self, threads: int) -> None:
        """NumPy's thread pools are set by the worker's environment."""
        if self.fault == "hang_loading":
            time.sleep(3600)

    def open(self, folder: Path) -> FakeSession:
        """Load the linear layer."""
        with np.load(folder / _FILE) as arrays:
            loaded = {name: np.asarray(arrays[name], np.float64) for name in arrays.files}
        return FakeSession(loaded, self.fault, self.fault_after)


@dataclass
class FakeSession:
    """A loaded linear layer and its fault; `calls` counts what it was asked.

    `arrays` has `weight` (classes, features) and `bias` (classes,). An INT8 layer, whose weights are
    whole numbers, has `weight_scale`, and scale and zero point of `input` and `output` too.
    """

    arrays: dict[str, NDArray[np.float64]]
    fault: Fault
    fault_after: int
    calls: int = field(default=0)

    def run(self, batch: Batch) -> Batch:
        """Map images (n, channels, height, width) to logits (n, classes), or fail as asked."""
        logits = self._compute(batch).astype(np.float32)
        self.calls += 1
        return self._fail(logits) if self.calls > self.fault_after else logits

    def executed(self, batch: Batch) -> Executed:
        """Return the layer's multiply-accumulates in the precision its weights lie in."""
        precision = "int8" if "weight_scale" in self.arrays else "fp32"
        return Executed(macs={precision: self.arrays["weight"].size}, kernels={f"matmul.{precision}": 1})

    def _compute(self, batch: Batch) -> NDArray[np.float64]:
        weight, bias = self.arrays["weight"], self.arrays["bias"]
        features = _features(batch, weight.shape[1])
        if "weight_scale" not in self.arrays:
            return features @ weight.T + bias
        # Whole numbers far below 2**53: float64 computes them exactly, as integers would.
        sums = _quantize(features, self.arrays["input"]) @ weight.T
        scale = self.arrays["input"][0] * self.arrays["weight_scale"].reshape(1, -1)
        out_scale = float(self.arrays["output"][0])
        return _quantize(sums * scale + bias, self.arrays["output"]) * out_scale

    def _fail(self, logits: Batch) -> Batch:
        match self.fault:
            case "hang":
                time.sleep(3600)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "memory":
                _exhaust_memory()
            case "raise":
                raise RuntimeError("the fake runtime was asked to raise")
            case "nan":
                return np.full_like(logits, np.nan)
            case "wrong_shape":
                return np.concatenate([logits, logits[:, :1]], axis=1)
            case "slow":
                time.sleep(SLOW_CALL_S)
            case "" | "float_named_int8":
                pass
        return logits


def _exhaust_memory() -> None:
    """Raise the MemoryError of NumPy under a limit that is taken away again."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_LITTLE_MEMORY, hard))
    try:
        np.ones(_LITTLE_MEMORY)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _last_linear(candidate: Candidate) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from torch import nn

    layer = [module for module in candidate.model.modules() if isinstance(module, nn.Linear)][-1]
    weight: NDArray[np.float32] = layer.weight.detach().numpy().copy()
    bias = np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias.detach().numpy().copy()
    return weight, bias


def _features(batch: Batch, count: int) -> Batch:
    flat = batch.reshape(len(batch), -1)
    return np.take(flat, np.arange(count) % flat.shape[1], axis=1)


def _affine(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale and zero point of the range of `values`, widened to include 0."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    scale = (high - low) / _ACTIVATION_LEVELS or 1.0
    return np.array([scale, np.rint(-low / scale)])


def _quantize(values: NDArray[np.floating], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Steps from the zero point, so that multiplying by the scale gives the value back."""
    scale, zero_point = (float(item) for item in affine)
    steps: NDArray[np.float64] = np.clip(np.rint(values / scale) + zero_point, 0, _ACTIVATION_LEVELS)
    return steps - zero_point
