"""ONNX Runtime on the CPU: one graph, optimized when it is loaded.

Artifact: `model.onnx`, input `images`, output `logits`, both float32.
Source of the method: ONNX Runtime, "Quantize ONNX models",
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from quant_explorer.core.contracts import Batch, Candidate, Deployment, Lowering
from quant_explorer.core.host.packages import explain_missing, package_versions
from quant_explorer.core.measurement import Executed

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, SessionOptions

_FILE = "model.onnx"
_INPUT, _OUTPUTS = "images", ["logits"]
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_ERRORS_ONLY = 3
# Of the process, like PyTorch's; ONNX Runtime itself has only thread counts of sessions that do not spin.
_threads: ContextVar[int] = ContextVar("threads of a session", default=1)


@dataclass(frozen=True)
class OnnxRuntime:
    """The `onnxruntime` runtime, with its CPU execution provider."""

    name: ClassVar[str] = "onnxruntime"
    version: ClassVar[int] = 7
    deployment: ClassVar[Deployment] = Deployment(
        ("onnxruntime",), Path(__file__).with_name("predict.py.jinja")
    )

    def unavailable(self) -> str | None:
        """Return which of its libraries are missing, or None."""
        return explain_missing("onnxruntime", *_PACKAGES)

    def cpu_features(self) -> tuple[str, ...]:
        """INT8 weights have 8 bits where ONNX Runtime's kernels are exact with them."""
        from quant_explorer.runtimes.onnxruntime.saturation import saturates
        from quant_explorer.runtimes.saturation import exact_by

        return exact_by(saturates=saturates())

    def versions(self) -> dict[str, str]:
        """Return the versions of the exporter's libraries and of the runtime."""
        return package_versions(*_PACKAGES, "onnx-ir", "torch")

    def unsupported(self, candidate: Candidate) -> str | None:
        """There is no BF16 on the CPU, and INT8 weights come with INT8 activations."""
        spec = candidate.spec
        if spec.precision == "bf16":
            return "ONNX Runtime has no BF16 kernels for the CPU; fp16 is the half precision it takes"
        if spec.precision == "int8" and spec.activations == "float":
            return "onnxruntime lowers INT8 with static or dynamic activations, not INT8 weights alone"
        if spec.activations == "dynamic" and not _linear_layers(candidate):
            return "no nn.Linear layer is left to be quantized dynamically"
        return None

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """Transposed convolutions in groups, where each channel has a scale."""
        from quant_explorer.runtimes.onnxruntime.lowering import GROUPS_TAKEN_FOR_CHANNELS
        from quant_explorer.tracing.plain import TRANSPOSED, layers_of

        if candidate.spec.granularity != "per_channel":
            return {}
        return {
            name: GROUPS_TAKEN_FOR_CHANNELS
            for name, module in layers_of(candidate.model, TRANSPOSED).items()
            if module.groups != 1
        }

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Export, convert as the spec asks, and write `model.onnx`.

        Raises UnsupportedError when the model cannot be exported to ONNX as it is, when a layer to be kept in
        float is not in the exported graph, or when layers to be quantized dynamically share weights.
        """
        from quant_explorer.runtimes.onnx_graph.checking import check_exported
        from quant_explorer.runtimes.onnx_graph.export import export_onnx
        from quant_explorer.runtimes.onnxruntime import lowering as onnx_quantization

        exported = export_onnx(candidate.model, calibration[0])
        if candidate.spec.precision != "fp32":
            check_exported(candidate.model, calibration[0], _run_once(exported))
        converted = onnx_quantization.convert(exported, candidate, calibration)
        (folder / _FILE).write_bytes(converted.data)
        return Lowering(notes=converted.notes, options=(), needs=converted.needs, grid=converted.grid)

    def load_libraries(self, threads: int) -> None:
        """Import ONNX Runtime; sessions opened from now on have `threads` threads."""
        import onnxruntime

        onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
        _threads.set(threads)

    def open(self, folder: Path) -> OnnxSession:
        """Load the graph with all optimizations, in a pool of its own that does not spin."""
        from onnxruntime import InferenceSession

        path = folder / _FILE
        return OnnxSession(
            InferenceSession(path, session_options(), providers=["CPUExecutionProvider"]), path
        )


@dataclass(frozen=True)
class _Bound:
    """Memory for one shape of batches: a run reads `images` and writes `logits`."""

    binding: IOBinding
    images: Batch
    logits: Batch


class OnnxSession:
    """A loaded graph and the file it came from. It holds the memory of one shape of batches.

    Source: ONNX Runtime, "I/O Binding", https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html.
    It spares each call a dictionary and a new array, which shows in small networks.
    """

    def __init__(self, session: InferenceSession, path: Path) -> None:
        """Start without bound buffers: the first call of a batch shape binds them."""
        self._session = session
        self._path = path
        self._bound: _Bound | None = None

    def run(self, batch: Batch) -> Batch:
        """Map float32 images (n, channels, height, width) to float32 logits (n, classes)."""
        bound = self._bound
        if bound is None or bound.images.shape != batch.shape:
            logits: Batch = self._session.run(_OUTPUTS, {_INPUT: batch})[0]
            self._bound = self._bind(np.empty_like(batch, order="C"), np.empty_like(logits))
            return logits
        np.copyto(bound.images, batch)
        self._session.run_with_iobinding(bound.binding)
        return bound.logits.copy()

    def executed(self, batch: Batch) -> Executed:
        """Count the multiply-accumulates of the kernels in ONNX Runtime's own profile, by their precision."""
        from quant_explorer.runtimes.onnxruntime.macs import count_macs

        return count_macs(self._path, {_INPUT: batch}, session_options)

    def _bind(self, images: Batch, logits: Batch) -> _Bound:
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        binding.bind_ortvalue_input(_INPUT, OrtValue.ortvalue_from_numpy(images))
        binding.bind_ortvalue_output(_OUTPUTS[0], OrtValue.ortvalue_from_numpy(logits))
        return _Bound(binding, images, logits)


def _run_once(exported: bytes) -> Callable[[Batch], Batch]:
    def run(images: Batch) -> Batch:
        from onnxruntime import InferenceSession

        session = InferenceSession(exported, session_options(), providers=["CPUExecutionProvider"])
        logits: Batch = session.run(_OUTPUTS, {_INPUT: images})[0]
        return logits

    return run


def _linear_layers(candidate: Candidate) -> list[str]:
    from quant_explorer.tracing.onnx_program import linear_layers

    kept = tuple(f"{layer}." for layer in candidate.spec.float_layers)
    return [name for name in linear_layers(candidate.model) if not f"{name}.".startswith(kept)]


def session_options() -> SessionOptions:
    """Return what every session is opened with: one node after the other, `load_libraries`'s threads."""
    from onnxruntime import ExecutionMode, SessionOptions

    options = SessionOptions()
    options.execution_mode = ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = _threads.get()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERRORS_ONLY
    return options
