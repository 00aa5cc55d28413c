"""ExecuTorch with the XNNPACK backend: PyTorch's runtime for phones and other edge devices.

Artifact: `model.pte`, one method for each batch size, weights stored once.
Source of the method: ExecuTorch, "XNNPACK Backend", https://docs.pytorch.org/executorch/stable/backends-xnnpack.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from quant_explorer.core.contracts import Batch, Candidate, Deployment, Lowering
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.host.packages import explain_missing, package_versions
from quant_explorer.core.measurement import Executed
from quant_explorer.core.quantspec import Grid

if TYPE_CHECKING:
    from executorch.extension.pybindings.portable_lib import ExecuTorchMethod, ExecuTorchProgram

FILE = "model.pte"


@dataclass(frozen=True)
class ExecuTorch:
    """The `executorch` runtime. `batch_sizes` are the numbers of images that methods are written for."""

    batch_sizes: str = "1,8,32"
    name: ClassVar[str] = "executorch"
    version: ClassVar[int] = 6
    deployment: ClassVar[Deployment] = Deployment(
        ("executorch", "torch"), Path(__file__).with_name("predict.py.jinja")
    )

    def unavailable(self) -> str | None:
        """It needs ExecuTorch's wheel, which has XNNPACK in it, and torchao to quantize."""
        return explain_missing("executorch", "executorch", "torchao")

    def cpu_features(self) -> tuple[str, ...]:
        """None: XNNPACK's kernels extend 8-bit values before they add, or have VNNI, and never overflow."""
        return ()

    def versions(self) -> dict[str, str]:
        """Return the versions of ExecuTorch, and of what exports and quantizes for it."""
        return package_versions("executorch", "torchao", "torch")

    def unsupported(self, candidate: Candidate) -> str | None:
        """XNNPACK has no BF16 convolution, no weight-only INT8 convolution, no dynamic INT8 a tensor."""
        from quant_explorer.tracing.onnx_program import explain_no_module

        if reason := explain_no_module(candidate.model):
            return reason
        spec = candidate.spec
        if spec.precision == "bf16":
            return "XNNPACK, ExecuTorch's CPU backend, has no BF16 convolutions; ask for fp16 or int8"
        if spec.precision == "int8" and spec.activations == "float":
            return "XNNPACK runs INT8 convolutions with INT8 activations only; ask for static or dynamic ones"
        if spec.activations == "dynamic" and spec.granularity == "per_tensor":
            return "XNNPACK has dynamic INT8 with a scale for each output channel only; ask for per_channel"
        return None

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """What XNNPACK's quantizer does not take."""
        from torch import nn

        from quant_explorer.tracing.plain import layers_of

        return dict.fromkeys(layers_of(candidate.model, (nn.Conv3d,)), "XNNPACK has no 3-d convolutions")

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Export, quantize as the spec asks, give what it can to XNNPACK, and write `model.pte`.

        Raises UnsupportedError when the model cannot be exported or ExecuTorch has no kernel for a part
        of it, SettingsError when `batch_sizes` are not whole numbers.
        """
        from quant_explorer.runtimes.executorch import lowering as xnnpack

        sizes = _parse_sizes(self.batch_sizes)
        graph = xnnpack.prepare(candidate, calibration)
        lowered = xnnpack.lower(graph, calibration[0].shape[1:], sizes)
        (folder / FILE).write_bytes(lowered.program)
        notes = (
            *xnnpack.describe_spec(candidate.spec),
            *lowered.notes,
            f"one method for each batch size ({', '.join(map(str, sizes))}), weights stored once; only the "
            "method in use is in memory, and other numbers of images are split into these",
            "ExecuTorch's Python binding loads PyTorch's libraries too; memory is counted from there on",
        )
        return Lowering(notes=notes, options=(), grid=Grid(weight_levels=127, transposed_groups="float"))

    def load_libraries(self, threads: int) -> None:
        """Import the binding and give XNNPACK's pool `threads` threads, the calling one among them."""
        import torch

        # portable_lib, the public name of the same binding, imports the exporter too: 5 s and 200 MB.
        from executorch.extension.pybindings import _C

        torch.set_num_threads(threads)
        _C._unsafe_reset_threadpool(threads)

    def open(self, folder: Path) -> ExecuTorchSession:
        """Map the program; a method is loaded with the first batch of its size."""
        from executorch.extension.pybindings import _C

        return ExecuTorchSession(folder / FILE, _C._load_program(str(folder / FILE)))


@dataclass(frozen=True)
class _Loaded:
    """A method with the memory that it reads images from and writes logits to."""

    method: ExecuTorchMethod
    images: Batch
    logits: Batch

    def run(self, batch: Batch) -> Batch:
        if batch.shape != self.images.shape:
            raise ValueError(f"images are {batch.shape[1:]}, the program takes {self.images.shape[1:]}")
        np.copyto(self.images, batch)
        self.method.execute()
        return self.logits.copy()


class ExecuTorchSession:
    """A program and the one method that ran last: memory is that of a deployment with this batch size."""

    def __init__(self, file: Path, program: ExecuTorchProgram) -> None:
        """Read which methods there are; none is loaded yet."""
        self._file = file
        self._program = program
        self._methods = methods_by_size(program)
        self._loaded: _Loaded | None = None

    def run(self, batch: Batch) -> Batch:
        """Map float32 images (n, channels, height, width) to float32 logits (n, classes).

        Raises ValueError for images of another shape.
        """
        if self._loaded is not None and len(batch) == len(self._loaded.images):
            return self._loaded.run(batch)
        parts: list[Batch] = []
        start = 0
        for size in split(len(batch), tuple(self._methods)):
            parts.append(self._load(size).run(batch[start : start + size]))
            start += size
        return np.concatenate(parts)

    def executed(self, batch: Batch) -> Executed:
        """Count the multiply-accumulates of the methods in the file; a profiled run names the kernels."""
        from quant_explorer.runtimes.executorch.macs import count_macs

        names = [self._methods[size] for size in split(len(batch), tuple(self._methods))]
        return count_macs(self._file, names, batch)

    def _load(self, size: int) -> _Loaded:
        from torch import from_numpy

        if self._loaded is not None and len(self._loaded.images) == size:
            return self._loaded
        # Before the next one is loaded, or both would be in memory.
        self._loaded = None
        name = self._methods[size]
        described = self._program.method_meta(name).input_tensor_meta(0)
        if described.is_memory_planned():
            raise ValueError(f"{self._file}: images are copied into the program's memory; build it again")
        images = np.zeros(described.sizes(), np.float32)
        method = self._program.load_method(name)
        # Once: each conversion of a tensor takes the binding as long as a small layer.
        method.set_inputs((from_numpy(images),))
        (logits,) = method.get_outputs(clone_outputs=False)
        self._loaded = _Loaded(method, images, logits.numpy())
        return self._loaded


def methods_by_size(program: ExecuTorchProgram) -> dict[int, str]:
    """Return the name of the method for each number of images, largest first."""
    names = [program.get_method_name(number) for number in range(program.num_methods())]
    sizes = {int(program.method_meta(name).input_tensor_meta(0).sizes()[0]): name for name in names}
    return dict(sorted(sizes.items(), reverse=True))


def split(count: int, sizes: Sequence[int]) -> list[int]:
    """Write `count` as a sum of `sizes` (largest first, 1 the last), with as few terms as greed finds."""
    parts: list[int] = []
    for size in sizes:
        parts += [size] * (count // size)
        count %= size
    return parts


def _parse_sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = {int(size) for size in text.split(",")}
    except ValueError as error:
        raise SettingsError(
            f"executorch: batch_sizes are {text!r}, expected something like '1,8,32'"
        ) from error
    if min(sizes) < 1:
        raise SettingsError(f"executorch: batch_sizes are {text!r}; each must be at least 1")
    return tuple(sorted(sizes | {1}))
