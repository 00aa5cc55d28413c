"""A traced graph as a TorchScript file without traces of the process that wrote it.

`torch.jit.save` also stores the sources and paths that each operator was traced from, and numbers the classes
that it has made so far in the process. None of it is needed.
"""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError, UnsupportedError
from quant_explorer.tracing.attention import attention_as_products

_log = logging.getLogger(__name__)
# The writer adds these by itself.
_OWN_RECORDS = (".data/", "version")
_CLASS_NUMBER = re.compile(rb"[./]___torch_mangle_\d+")
# The same kernels in the same order: what is more than rounding is a wrong trace. Freezing computes constants
# before they are rounded to 16 bits.
_TOLERANCE = 1e-4
_HALF = (torch.bfloat16, torch.float16)
_STEPS_OF_16_BITS = 4


def write(graph: nn.Module, file: Path, images: Batch) -> None:
    """Trace `graph`, freeze it and write it, and check the file on one and on all `images` (n, C, H, W).

    Raises UnsupportedError when the model cannot be traced for every batch size, BuildError when the file
    does not compute what `graph` computes.
    """
    batch = torch.from_numpy(images)
    with torch.no_grad(), attention_as_products():
        try:
            frozen = torch.jit.freeze(torch.jit.trace(graph.eval(), batch, check_trace=False))
        except RuntimeError as error:
            _log.info("cannot be traced: %s", error)
            raise UnsupportedError(
                f"PyTorch cannot trace {_operator(error)} to TorchScript; eager runs the same graph without"
            ) from error
    saved = io.BytesIO()
    torch.jit.save(frozen, saved)
    saved.seek(0)
    _copy_records(saved, file)
    _check(graph, file, (batch[:1], batch))


def can_be_optimized(graph: nn.Module, file: Path, images: Batch) -> bool:
    """Say whether `torch.jit.optimize_for_inference` computes what `graph` does, for one and all `images`.

    It gives feature maps to oneDNN between float convolutions, where some operators do not take its layout.
    """
    with torch.inference_mode():
        for batch in (torch.from_numpy(images[:1]), torch.from_numpy(images)):
            try:
                # PyTorch compiles in the first two calls.
                optimized = torch.jit.optimize_for_inference(torch.jit.load(file))
                logits = [optimized(batch) for _ in range(3)][-1]
            except RuntimeError as error:
                _log.info("optimize_for_inference: %s", error)
                return False
            expected = graph(batch)
            if (logits - expected).abs().max() > _tolerance(graph) * expected.abs().max():
                return False
    return True


def _tolerance(graph: nn.Module) -> float:
    """Return how far outputs may be off, as a share of the largest."""
    halves = {item.dtype for item in (*graph.parameters(), *graph.buffers())} & set(_HALF)
    return max((_STEPS_OF_16_BITS * torch.finfo(dtype).eps for dtype in halves), default=_TOLERANCE)


def _copy_records(saved: io.BytesIO, file: Path) -> None:
    reader = torch._C.PyTorchFileReader(saved)
    writer = torch._C.PyTorchFileWriter(str(file))
    # Operators are read by the schemas of their version, of which the writer's own is the oldest.
    # Where it is written depends on what it is.
    version = next(name for name in reader.get_all_records() if name.rpartition("/")[2] == "version")
    writer.set_min_version(int(reader.get_record(version)))
    for record in reader.get_all_records():
        if record.startswith(_OWN_RECORDS) or record.endswith(".debug_pkl"):
            continue
        name = _CLASS_NUMBER.sub(b"", record.encode()).decode()
        data = reader.get_record(record)
        if name.endswith((".py", ".pkl")):
            data = _CLASS_NUMBER.sub(b"", data)
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()


def _check(graph: nn.Module, file: Path, batches: tuple[torch.Tensor, ...]) -> None:
    try:
        loaded = torch.jit.load(file)
    except RuntimeError as error:
        _log.info("cannot be read back: %s", error)
        raise UnsupportedError(
            f"PyTorch cannot read back {_operator(error)} from the TorchScript file that it has written; use "
            "eager, which runs the same graph"
        ) from error
    for batch in batches:
        with torch.inference_mode():
            expected = graph(batch)
            try:
                logits = loaded(batch)
            except RuntimeError as error:
                _log.info("another batch size: %s", error)
                raise UnsupportedError(
                    f"the trace of the model does not take batches of {len(batch)}, only the size it was "
                    f"traced with, because of {_operator(error)}; write it without the number of images"
                ) from error
        if logits.shape != expected.shape:
            raise UnsupportedError(
                f"the trace of the model gives logits {tuple(logits.shape)} for a batch of {len(batch)}; its "
                "forward() must not turn sizes into Python numbers"
            )
        # Written so that NaN is not near.
        if not (logits - expected).abs().max() <= _tolerance(graph) * expected.abs().max():
            raise BuildError(f"{file} does not compute what the traced model computes")


def _operator(error: RuntimeError) -> str:
    """Name the operator that an error of TorchScript is about."""
    found = re.search(r"\b(aten|quantized|prim)::\w+", str(error))
    return f"operator {found[0]}" if found else "an operator of the model"
