"""TorchScript: a frozen trace of the graphs of `eager`, run by PyTorch's interpreter without Python.

Artifact: `model.ts`, which `torch.jit.load` reads in Python and C++. INT8 is FX graph mode quantization,
as in `eager`. When it is opened, `torch.jit.optimize_for_inference` gives float convolutions to oneDNN;
that form of the graph cannot be saved. The first two calls compile, for all batch sizes. As in `eager`, INT8
is fastest at the batch size of the first call.
Source of the method: PyTorch, "TorchScript", https://docs.pytorch.org/docs/2.9/jit.html.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from quant_explorer.core.contracts import Batch, Candidate, Deployment, Lowering
from quant_explorer.core.measurement import Executed
from quant_explorer.runtimes.eager.runtime import Eager, select_engine

if TYPE_CHECKING:
    import torch

MODEL_FILE = "model.ts"
_ONEDNN_CONVOLUTION = "prim::mkldnn_convolution"
_MAP_DIMENSIONS = 4
_NOT_OPTIMIZED = "opened without torch.jit.optimize_for_inference"
_BROADCASTS = "the model broadcasts, which oneDNN's layout cannot"
_NOT_IN_LAYOUT = "an operator between convolutions does not take oneDNN's layout"
# More than one, so that a batch size of one is not taken for a constant.
_TRACED_IMAGES = 2


@dataclass(frozen=True)
class TorchScript:
    """The `torchscript` runtime. `engine` is PyTorch's quantized engine; empty chooses what suits the CPU.

    `optimize` False opens the file as it is, without `torch.jit.optimize_for_inference`.
    """

    engine: str = ""
    optimize: bool = True
    name: ClassVar[str] = "torchscript"
    version: ClassVar[int] = 7
    deployment: ClassVar[Deployment] = Deployment(("torch",), Path(__file__).with_name("predict.py.jinja"))

    def unavailable(self) -> str | None:
        """TorchScript is part of PyTorch, which this package requires."""
        return None

    def cpu_features(self) -> tuple[str, ...]:
        """As in eager, whose graphs are traced."""
        return Eager(self.engine).cpu_features()

    def versions(self) -> dict[str, str]:
        """Return PyTorch's version, with its build (`+cpu`, `+cu130`)."""
        return Eager().versions()

    def unsupported(self, candidate: Candidate) -> str | None:
        """Half precision needs kernels for this CPU, INT8 a PyTorch that can quantize."""
        return Eager().unsupported(candidate)

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """As in `eager`, whose quantization it is."""
        return Eager(self.engine).kept_in_float(candidate)

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Fuse, cast or quantize as the spec asks, trace, freeze, and write `model.ts`.

        Raises UnsupportedError when the model cannot be traced to a graph, BuildError when the trace is
        not the graph.
        """
        from quant_explorer.runtimes.eager import lowering as eager_lowering
        from quant_explorer.runtimes.torch_graph import engine as torch_engine
        from quant_explorer.runtimes.torchscript import file as torchscript_file

        engine = select_engine(self.engine) if candidate.spec.precision == "int8" else None
        with torch_engine.quantized_engine(engine):
            lowered = eager_lowering.lower(candidate, calibration, engine)
            images = calibration[0][:_TRACED_IMAGES]
            file = folder / MODEL_FILE
            torchscript_file.write(lowered.module, file, images)
            reason = _BROADCASTS if has_broadcasts(lowered.module, images) else None
            if (
                not reason
                and self.optimize
                and not torchscript_file.can_be_optimized(lowered.module, file, images)
            ):
                reason = _NOT_IN_LAYOUT
        return Lowering(
            notes=(*lowered.notes, f"{_NOT_OPTIMIZED}: {reason}") if reason else lowered.notes,
            options=(("engine", engine or ""), ("optimize", self.optimize and not reason)),
            needs=lowered.needs,
            grid=lowered.grid,
        )

    def load_libraries(self, threads: int) -> None:
        """Import PyTorch with its quantized modules, where it has them, and give it `threads` threads."""
        Eager().load_libraries(threads)

    def open(self, folder: Path) -> TorchScriptSession:
        """Choose the quantized engine, load the module and optimize it for inference."""
        import torch

        if self.engine:
            torch.backends.quantized.engine = self.engine
        file = folder / MODEL_FILE
        module = torch.jit.load(file)
        return TorchScriptSession(torch.jit.optimize_for_inference(module) if self.optimize else module, file)


@dataclass(frozen=True)
class TorchScriptSession:
    """A loaded and optimized module, and the file it comes from."""

    module: torch.jit.ScriptModule
    file: Path

    def run(self, batch: Batch) -> Batch:
        """Map float32 images (n, channels, height, width) to float32 logits (n, classes)."""
        import torch

        with torch.inference_mode():
            logits: Batch = self.module(torch.from_numpy(batch)).numpy()
        return logits

    def executed(self, batch: Batch) -> Executed:
        """Count the multiply-accumulates of the operators that the interpreter dispatched, by precision.

        Float convolutions given to oneDNN are not dispatched. Theirs are what remains of the file's own
        total: float32, the only type that `optimize_for_inference` converts.
        """
        import torch

        from quant_explorer.runtimes.torch_graph.macs import count_macs

        seen = count_macs(self.module, batch)
        converted = sum(node.kind() == _ONEDNN_CONVOLUTION for node in self.module.inlined_graph.nodes())
        if not converted:
            return seen
        total = sum(count_macs(torch.jit.load(self.file), batch).macs.values())
        macs = Counter(seen.macs)
        macs["fp32"] += total - sum(seen.macs.values())
        return Executed(dict(sorted(macs.items())), seen.kernels | {_ONEDNN_CONVOLUTION: converted})


def has_broadcasts(graph: torch.fx.GraphModule, images: Batch) -> bool:
    """Say whether feature maps of different sizes are multiplied or added, as in squeeze-and-excitation.

    `optimize_for_inference` copies the smaller one to the size of the larger, because oneDNN's layout
    cannot broadcast: FP32 takes 1.3 to 1.5 times as long for MobileNetV3, EfficientNet and RegNetY
    (measured), in place of 0.6 to 0.9 for networks without.
    """
    import torch
    from torch.fx.passes.shape_prop import ShapeProp

    with torch.no_grad():
        ShapeProp(graph).propagate(torch.from_numpy(images))
    for node in graph.graph.nodes:
        inputs = [source.meta.get("tensor_meta") for source in node.all_input_nodes]
        shapes = [
            meta.shape for meta in inputs if hasattr(meta, "shape") and len(meta.shape) == _MAP_DIMENSIONS
        ]
        if any(_is_broadcast(shape, other) for shape in shapes for other in shapes):
            return True
    return False


def _is_broadcast(shape: torch.Size, other: torch.Size) -> bool:
    return shape != other and all(a == b or 1 in (a, b) for a, b in zip(shape, other, strict=True))
