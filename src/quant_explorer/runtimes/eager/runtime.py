"""PyTorch eager: modules called one by one, INT8 by FX graph mode quantization where PyTorch still has it.

Artifact: `model.py` (generated, readable) and `weights.pt` (a state dict that `weights_only=True` loads).
Of a model that torch.fx cannot trace, in FP32 alone: `model.pt2`, the program that torch.export makes.
The engines `x86` and `onednn` keep ready what a quantized convolution needs for the batch size of its first
call; at other sizes they look it up in each call (50 to 80 us a layer, measured).
Source of the method: PyTorch, "FX graph mode quantization",
https://docs.pytorch.org/docs/2.9/quantization.html.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from quant_explorer.core.contracts import Batch, Candidate, Deployment, Lowering
from quant_explorer.core.errors import SettingsError, UnsupportedError
from quant_explorer.core.host.architecture import is_arm
from quant_explorer.core.measurement import Executed
from quant_explorer.core.registry import unknown_name_message

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Eager:
    """The `eager` runtime. `engine` is PyTorch's quantized engine; empty chooses the one for this CPU."""

    engine: str = ""
    name: ClassVar[str] = "eager"
    version: ClassVar[int] = 7
    deployment: ClassVar[Deployment] = Deployment(("torch",), Path(__file__).with_name("predict.py.jinja"))

    def unavailable(self) -> str | None:
        """Eager is PyTorch itself, which this package requires."""
        return None

    def cpu_features(self) -> tuple[str, ...]:
        """Static INT8 has 8 bits where the engine's kernels are exact; half precision may be emulated."""
        from quant_explorer.runtimes.torch_graph import engine as torch_engine
        from quant_explorer.runtimes.torch_graph import half

        engine = find_engine(self.engine)
        return (*(torch_engine.needed_features(engine) if engine else ()), *half.native_precisions())

    def versions(self) -> dict[str, str]:
        """Return PyTorch's version, with its build (`+cpu`, `+cu130`)."""
        import torch

        return {"torch": str(torch.__version__)}

    def unsupported(self, candidate: Candidate) -> str | None:
        """Half precision needs kernels for this CPU, INT8 a PyTorch that can quantize."""
        from quant_explorer.runtimes.torch_graph import half
        from quant_explorer.tracing.onnx_program import explain_no_module

        if reason := explain_no_module(candidate.model):
            return reason
        precision = candidate.spec.precision
        if precision == "int8":
            return explain_missing_int8()
        return half.explain_missing_kernels(precision) if precision in half.DTYPES else None

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """Transposed convolutions, where the engine computes them wrongly."""
        from quant_explorer.runtimes.torch_graph import engine as torch_engine
        from quant_explorer.tracing.plain import TRANSPOSED, layers_of

        engine = select_engine(self.engine)
        reason = torch_engine.explain_transposed(candidate.spec, engine)
        return dict.fromkeys(layers_of(candidate.model, TRANSPOSED), reason) if reason else {}

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Fuse, cast or quantize as the spec asks, and write `model.py` and `weights.pt`.

        Raises UnsupportedError when the model cannot be traced to a graph (for FP32: nor captured by
        torch.export), or has an operator without this precision.
        """
        from quant_explorer.runtimes.eager import exported, program
        from quant_explorer.runtimes.eager import lowering as eager_lowering
        from quant_explorer.runtimes.torch_graph import engine as torch_engine

        engine = select_engine(self.engine) if candidate.spec.precision == "int8" else None
        try:
            with torch_engine.quantized_engine(engine):
                lowered = eager_lowering.lower(candidate, calibration, engine)
                program.write(lowered.module, folder, calibration[0][:1], engine=engine)
        except UnsupportedError as error:
            if candidate.spec.precision != "fp32":
                raise
            return Lowering(notes=exported.write(candidate.model, folder, calibration[0], error), options=())
        options = (("engine", engine),) if engine else ()
        return Lowering(notes=lowered.notes, options=options, needs=lowered.needs, grid=lowered.grid)

    def load_libraries(self, threads: int) -> None:
        """Import PyTorch with its quantized modules, where it has them, and give it `threads` threads."""
        import torch

        with contextlib.suppress(ImportError):
            import torch.ao.nn.intrinsic.quantized
            import torch.ao.nn.quantized.dynamic

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)

    def open(self, folder: Path) -> EagerSession:
        """Load the generated module and its weights."""
        from quant_explorer.runtimes.eager import exported, program

        return EagerSession(exported.read(folder) or program.read(folder))


@dataclass(frozen=True)
class EagerSession:
    """A loaded module, called without gradients."""

    module: nn.Module

    def run(self, batch: Batch) -> Batch:
        """Map float32 images (n, channels, height, width) to float32 logits (n, classes)."""
        import torch

        with torch.inference_mode():
            logits: Batch = self.module(torch.from_numpy(batch)).numpy()
        return logits

    def executed(self, batch: Batch) -> Executed:
        """Count the multiply-accumulates of the operators that PyTorch dispatched, by their precision."""
        from quant_explorer.runtimes.torch_graph.macs import count_macs

        return count_macs(self.module, batch)


def explain_missing_int8() -> str | None:
    """Return why this PyTorch cannot quantize for `eager` and `torchscript`, or None."""
    import torch

    try:
        from torch.ao.quantization import quantize_fx  # noqa: F401
    except ImportError:
        missing = "torch.ao.quantization"
    else:
        if hasattr(torch, "quint8"):
            return None
        missing = "quantized tensors"
    return (
        f"PyTorch {torch.__version__} has no {missing}, with which eager and torchscript compute in INT8; "
        "use inductor, onnxruntime, openvino or executorch for INT8, or PyTorch 2.14"
    )


def select_engine(engine: str) -> str:
    """Return the quantized engine to use: the one asked for, or the one that suits this CPU.

    Raises SettingsError with the engines this build of PyTorch has for an unknown one, and
    UnsupportedError when it has none.
    """
    found = find_engine(engine)
    if found is None:
        raise UnsupportedError("this build of PyTorch has no quantized engine")
    return found


def find_engine(engine: str) -> str | None:
    """Return what `select_engine` does, None when this build of PyTorch has no quantized engine."""
    import torch

    engines = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if engine:
        if engine not in engines:
            raise SettingsError(unknown_name_message("quantized engine", engine, engines))
        return engine
    suited = "qnnpack" if is_arm() else "x86"
    return next((name for name in (suited, "fbgemm", "qnnpack") if name in engines), None)
