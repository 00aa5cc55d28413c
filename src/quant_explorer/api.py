"""The Python API: one model in, a new and smaller one out, or an error.

Nothing here falls back: a model that is called INT8 and runs in FP32 is worse than an exception. To find out
which of the results to ship, use the command line, which measures them.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import nn

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import BuildError, DataError, ModelError, SettingsError, require_supported
from quant_explorer.core.measurement import Executed
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.models.weights import check_finite
from quant_explorer.pipeline.building.expectation import CHECKED_IMAGES, Expectation
from quant_explorer.pipeline.measure import LEAST_STATIC_INT8_FRACTION
from quant_explorer.runtimes.eager.runtime import explain_missing_int8, select_engine
from quant_explorer.runtimes.torch_graph import engine as torch_engine
from quant_explorer.runtimes.torch_graph.half import HalfPrecisionModel
from quant_explorer.runtimes.torch_graph.macs import count_macs
from quant_explorer.techniques.prune import ChannelPruning
from quant_explorer.tracing.plain import make_plain

__all__ = ["prune_channels", "to_fp16", "to_int8"]

_log = logging.getLogger(__name__)


def to_fp16(model: nn.Module) -> nn.Module:
    """Return a copy of `model` that stores and computes in float16: half the size.

    It takes and gives float32 and is in evaluation mode; `model` stays as it is. Whether it is faster depends
    on the CPU: without FP16 instructions it is slower than FP32.

    Raises ModelError for a model that is not float32 and finite, BuildError for weights above 65,504, which
    float16 does not have. Source: Micikevicius et al., "Mixed Precision Training", ICLR 2018.
    """
    _check_model(model, "cpu", "cuda")
    half = copy.deepcopy(model).eval().half()
    lost = [
        name
        for name, tensor in half.state_dict().items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if lost:
        largest = torch.finfo(torch.float16).max
        raise BuildError(f"float16 ends at {largest:,.0f}; larger weights in {', '.join(lost)}")
    return HalfPrecisionModel(half, torch.float16).eval()


def to_int8(
    model: nn.Module,
    calibration_loader: Iterable[torch.Tensor | Sequence[object]],
    calibration_batches: int = 8,
    backend: str = "x86",
    metadata_path: str | Path | None = None,
) -> nn.Module:
    """Return a copy of `model` whose convolutions and linear layers compute in INT8.

    Static quantization: weights have one scale an output channel, activations one a tensor, from the first
    `calibration_batches` of `calibration_loader`, an iterable of float32 tensors (n, channels, height, width)
    or of pairs of one and its labels. It takes and gives float32; `model` stays as it is.

    `backend` is PyTorch's quantized engine: "x86", "fbgemm", "onednn" or "qnnpack", where it exists.
    `metadata_path` gets JSON: engine, bits and the reason for them, scales, calibration, `int8_mac_fraction`.

    Raises BuildError with the figure when the multiply-accumulates did not run in INT8 or the outputs are
    much further from the float model's than INT8 explains, UnsupportedError when the model cannot be traced
    by torch.fx or this PyTorch has no torch.ao.quantization, SettingsError for a backend that is not there,
    DataError for unfit images, ModelError for an unfit model.
    Source: Jacob et al., CVPR 2018; see docs/quantization.md.
    """
    _check_model(model, "cpu")
    require_supported(explain_missing_int8())
    from quant_explorer.runtimes.torch_graph import fx

    engine = select_engine(backend)
    batches = _read_batches(calibration_loader, calibration_batches)
    checked = batches[0][:CHECKED_IMAGES]
    original = copy.deepcopy(make_plain(model)).eval()
    _float_output(original, checked)  # Raises for a model that is none to quantize.
    spec = QuantSpec(precision="int8", activations="static")
    default = torch.backends.quantized.engine
    with torch_engine.quantized_engine(engine), _library_warnings_in_the_log():
        lowered = fx.quantize(Candidate(original, spec), batches, engine, copied_for=default)
    quantized: nn.Module = lowered.module.eval()
    # Counted and compared as the caller will run it: under whatever engine is PyTorch's default.
    executed = count_macs(quantized, checked)
    share = _int8_share(executed, count_macs(original, checked))
    Expectation(Candidate(original, spec), batches).check(
        lambda images: _float_output(quantized, images).reshape(len(images), -1), lowered.grid
    )
    if metadata_path is not None:
        metadata = _describe(quantized, spec, engine, batches, executed) | {"int8_mac_fraction": share}
        write_atomically(Path(metadata_path), json.dumps(metadata, indent=2).encode() + b"\n")
    return quantized


def prune_channels(model: nn.Module, example_input: torch.Tensor, ratio: float) -> nn.Module:
    """Return a copy of `model` without the share `ratio` (0 to 1) of its channels: a smaller, dense network.

    Those of least L1 norm go, with all that makes or reads them; the outputs keep their shape.
    `example_input` is a float32 tensor (n, channels, height, width). The copy is in evaluation mode and has
    to be trained again; `model` stays as it is.

    Raises UnsupportedError for a ratio out of range, a model whose layers cannot be followed or that has
    nothing to remove, and when torch-pruning is not installed; DataError and ModelError for unfit arguments.
    Source: Fang et al., "DepGraph", CVPR 2023; Li et al., ICLR 2017.
    """
    _check_model(model, "cpu")
    technique = ChannelPruning(ratio=ratio)
    require_supported(technique.unsupported(Candidate(model, QuantSpec())))
    return technique.prune(make_plain(model), (_as_batch(example_input, "example_input"),)).model


@contextmanager
def _library_warnings_in_the_log() -> Iterator[None]:
    """Log what PyTorch warns of because of us, here and in its own files; what the caller's code warns stays.

    Such as deprecations: the caller can do nothing about them.
    """
    show = warnings.showwarning
    libraries = tuple(f"{Path(file).parent}{os.sep}" for file in (__file__, torch.__file__))

    def log(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if filename.startswith(libraries):
            _log.info("%s: %s", category.__name__, message)
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = log
        yield


def _check_model(model: nn.Module, *devices: str) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is a {type(model).__name__}, not a torch.nn.Module")
    types = {parameter.dtype for parameter in model.parameters()}
    if types != {torch.float32}:
        found = ", ".join(sorted(map(str, types))) or "none"
        raise ModelError(f"the model must have float32 parameters; found: {found}")
    elsewhere = {parameter.device.type for parameter in model.parameters()} - set(devices)
    if elsewhere:
        raise ModelError(f"the model is on {', '.join(sorted(elsewhere))}. Allowed: {', '.join(devices)}")
    check_finite(model, "the model")


def _read_batches(loader: Iterable[torch.Tensor | Sequence[object]], count: int) -> tuple[Batch, ...]:
    if count < 1:
        raise SettingsError(f"calibration_batches {count} is out of range. Allowed: at least 1")
    if isinstance(loader, torch.Tensor):
        raise DataError(
            "calibration_loader is one tensor; give an iterable of batches, for instance [images]"
        )
    batches = tuple(
        _as_batch(item[0] if isinstance(item, list | tuple) and item else item, f"calibration batch {number}")
        for number, item in enumerate(itertools.islice(loader, count), start=1)
    )
    if not batches:
        raise DataError("calibration_loader is empty; at least one batch is needed to find the ranges")
    return batches


def _as_batch(value: object, where: str) -> Batch:
    if not isinstance(value, torch.Tensor):
        raise DataError(f"{where} is a {type(value).__name__}, not a tensor or a (tensor, labels) pair")
    if value.dtype != torch.float32:
        raise DataError(f"{where} is {value.dtype}; allowed: torch.float32, prepared as for the float model")
    if value.dim() < 2 or not value.numel():
        raise DataError(
            f"{where} has shape {tuple(value.shape)}; allowed: (n, channels, height, width), n > 0"
        )
    if not bool(value.isfinite().all()):
        raise DataError(f"{where} holds NaN or infinity")
    # A copy: some loaders fill the same tensor again.
    return np.array(value.detach().cpu().numpy(), np.float32, order="C")


def _float_output(model: nn.Module, batch: Batch) -> Batch:
    with torch.no_grad():
        output: object = model(torch.from_numpy(batch))
    if not isinstance(output, torch.Tensor) or output.dtype != torch.float32:
        found = output.dtype if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(f"the model must return one float32 tensor; it returned {found}")
    if not bool(output.isfinite().all()):
        raise BuildError("the outputs for the first calibration batch hold NaN or infinity")
    logits: Batch = output.numpy()
    return logits


def _int8_share(executed: Executed, original: Executed) -> float:
    """Return the share of the float model's multiply-accumulates that ran in INT8, if it is enough.

    Of the float model's, because an operator that computes in FP32 inside, such as PyTorch's product of two
    quantized matrices, is not counted in the quantized one.
    """
    total = sum(original.macs.values())
    share = executed.macs.get("int8", 0) / total if total else 0.0
    if share <= LEAST_STATIC_INT8_FRACTION:
        raise BuildError(
            f"the model was quantized, but {share:.1%} of its {total:,} multiply-accumulates ran in int8; "
            f"more than {LEAST_STATIC_INT8_FRACTION:.0%} is required"
        )
    return share


def _describe(
    quantized: nn.Module, spec: QuantSpec, engine: str, batches: Sequence[Batch], executed: Executed
) -> dict[str, object]:
    bits, reason = torch_engine.choose_bits(spec, engine, torch.backends.quantized.engine)
    return {
        "backend": engine,
        "torch": str(torch.__version__),
        "weights": {"bits": 8, "granularity": spec.granularity},
        "activations": {
            "bits": bits,
            "reason": reason or "the engine's kernels are exact with 8 bits on this CPU",
            "observer": spec.observer,
            "outputs": _output_scales(quantized),
        },
        "calibration": {"batches": len(batches), "images": sum(map(len, batches))},
        "macs": executed.macs,
        "kernels": executed.kernels,
    }


def _output_scales(quantized: nn.Module) -> dict[str, dict[str, float | int]]:
    """Return scale and zero point of the output of every quantized layer, by its name in the float model."""
    return {
        name: {"scale": float(vars(module)["scale"]), "zero_point": int(vars(module)["zero_point"])}
        for name, module in quantized.named_modules()
        if {"scale", "zero_point"} <= vars(module).keys()
    }
