"""TorchInductor: the exported model compiled to machine code ahead of time (AOTInductor).

Artifact: `model.pt2`, a package of a shared library with the weights in it.
Source of the method: PyTorch, "AOTInductor: Ahead-Of-Time Compilation for torch.export-ed models",
https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/torch.compiler_aot_inductor.html; torchao,
"PyTorch 2 Export Quantization with X86 Backend through Inductor",
https://docs.pytorch.org/ao/stable/tutorials_source/pt2e_quant_x86_inductor.html.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from quant_explorer.core.contracts import Batch, Candidate, Deployment, Lowering
from quant_explorer.core.host.architecture import architecture, is_x86
from quant_explorer.core.host.packages import explain_missing, package_versions
from quant_explorer.core.measurement import Executed
from quant_explorer.core.quantspec import Granularity, QuantSpec
from quant_explorer.runtimes.inductor import cpp_compiler

if TYPE_CHECKING:
    from torch._C._aoti import AOTIModelPackageLoader

PACKAGE_FILE = "model.pt2"
# Of the package's metadata: the model's multiply-accumulates, and the precision of those not quantized.
MACS_KEY, FLOAT_PRECISION_KEY = "macs", "float_precision"
# What the loader unpacks in the folder for temporary files.
_EXTRACTED = "aotinductor_??????/*/data/aotinductor/model/*.so"
# Of the weights, as torchao's quantizer for the machine asks for it.
_GRANULARITY: dict[str, Granularity] = {
    "x86_64": "per_channel",
    "aarch64": "per_tensor",
}


@dataclass(frozen=True)
class Inductor:
    """The `inductor` runtime: PyTorch's compiler, with torchao's quantizer for this kind of CPU."""

    name: ClassVar[str] = "inductor"
    version: ClassVar[int] = 6
    deployment: ClassVar[Deployment] = Deployment(("torch",), Path(__file__).with_name("predict.py.jinja"))

    def unavailable(self) -> str | None:
        """torchao quantizes, and a C++ compiler is called when a model is built."""
        return cpp_compiler.explain_missing_compiler() or explain_missing("inductor", "torch", "torchao")

    def cpu_features(self) -> tuple[str, ...]:
        """Return what the compiler generates code for, and what precisions are chosen by."""
        from quant_explorer.runtimes.inductor import saturation as inductor_saturation
        from quant_explorer.runtimes.saturation import exact_by
        from quant_explorer.runtimes.torch_graph import half

        exact = exact_by(saturates=inductor_saturation.saturates())
        return (*cpp_compiler.compiled_features(), *exact, *half.native_precisions())

    def versions(self) -> dict[str, str]:
        """Return the versions of what compiles and quantizes."""
        return package_versions("torch", "torchao") | {"c++": cpp_compiler.describe_compiler()}

    def unsupported(self, candidate: Candidate) -> str | None:
        """Half precision needs kernels for this CPU, INT8 the granularity that its kernels have."""
        from quant_explorer.tracing.onnx_program import explain_no_module

        if reason := explain_no_module(candidate.model):
            return reason
        spec = candidate.spec
        if spec.target == "portable" and not is_x86():
            return "inductor compiles portably for x86-64 only; on this machine choose the native target"
        miscompiled = _explain_miscompiled(candidate)
        if miscompiled is not None:
            return miscompiled
        if spec.precision == "int8":
            return _explain_granularity(spec)
        if spec.precision == "fp32":
            return None
        if spec.float_layers:
            return f"inductor casts a whole model to {spec.precision}: no layer can be left in float"
        from quant_explorer.runtimes.torch_graph import half

        return half.explain_missing_kernels(spec.precision)

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """What torchao's quantizer does not take, and what AOTInductor compiles wrongly."""
        from quant_explorer.runtimes.inductor.lowering import explain_float_layers

        return explain_float_layers(candidate.model)

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Export, quantize or cast as the spec asks, compile for this CPU, and write `model.pt2`.

        Raises UnsupportedError when the model cannot be exported or quantized, or not compiled for any number
        of images, BuildError when the C++ compiler fails.
        """
        from quant_explorer.runtimes.inductor import lowering as inductor_lowering

        spec = candidate.spec
        program, notes = inductor_lowering.prepare(candidate, calibration)
        precision = spec.precision
        metadata = {
            MACS_KEY: str(inductor_lowering.count_macs(candidate.model, calibration[0][:1])),
            FLOAT_PRECISION_KEY: "fp32" if precision == "int8" else precision,
        }
        settings = inductor_lowering.settings(spec.target)
        inductor_lowering.compile_package(program, folder / PACKAGE_FILE, metadata, settings)
        inductor_lowering.check_images(program, candidate.model, calibration[0].shape[1:])
        needs, grid = inductor_lowering.needed_features(spec), inductor_lowering.grid(spec.target)
        return Lowering(notes=notes, options=(), needs=needs, grid=grid)

    def load_libraries(self, threads: int) -> None:
        """Import PyTorch (without its compiler), and give it `threads` threads."""
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        # Generated code reads memory as if the input were as it was compiled for; this makes it look first.
        os.environ["AOTI_RUNTIME_CHECK_INPUTS"] = "1"

    def open(self, folder: Path) -> InductorSession:
        """Load the package's library."""
        from torch._C._aoti import AOTIModelPackageLoader

        single_threaded, runners, device = True, 1, -1
        loader = AOTIModelPackageLoader(str(folder / PACKAGE_FILE), "model", single_threaded, runners, device)
        _remove_extracted()
        return InductorSession(loader)


@dataclass(frozen=True)
class InductorSession:
    """A loaded package, called without PyTorch's pytrees: one tensor in, one out."""

    loader: AOTIModelPackageLoader

    def run(self, batch: Batch) -> Batch:
        """Map float32 images (n, channels, height, width) to float32 logits (n, classes)."""
        from torch import from_numpy

        logits: Batch = self.loader.run([from_numpy(batch)])[0].numpy()
        return logits

    def executed(self, batch: Batch) -> Executed:
        """Count the multiply-accumulates of the primitives that oneDNN logs, and of the rest of the model."""
        from quant_explorer.runtimes.inductor.macs import count_macs

        written = self.loader.get_metadata()
        return count_macs(
            self.run, batch, total=int(written[MACS_KEY]), precision=written[FLOAT_PRECISION_KEY]
        )


def _explain_miscompiled(candidate: Candidate) -> str | None:
    """Name the layers that come out as something else in any precision (seen in PyTorch 2.14)."""
    from torch import nn

    layers = [
        name
        for name, module in candidate.model.named_modules()
        if isinstance(module, nn.Conv3d) and module.in_channels == 1
    ]
    if not layers:
        return None
    return (
        f"AOTInductor makes something else of 3-d convolutions with one input channel ({', '.join(layers)}); "
        "choose another runtime"
    )


def _explain_granularity(spec: QuantSpec) -> str | None:
    asked = spec.granularity
    machine = architecture()
    there = _GRANULARITY.get(machine)
    if there is None:
        return f"torchao has INT8 quantizers of Inductor for x86 and Arm, not for {machine}"
    if asked == there:
        return None
    choice = f"static_int8_{there}" if spec.activations == "dynamic" else f"a {there} configuration"
    return (
        f"on {machine} Inductor has INT8 kernels for {there} weights only; {asked} weights would be "
        f"multiplied in FP32: choose {choice}"
    )


def _remove_extracted() -> None:
    """Delete the library that the loader unpacked: it is mapped, and a killed worker would leave it."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    for line in maps.read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.match(_EXTRACTED):
            shutil.rmtree(path.parents[4], ignore_errors=True)
