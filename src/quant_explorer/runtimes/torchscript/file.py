"""A traced graph as a TorchScript file without traces of the process that wrote it.

`torch.jit.save` also stores the sources and paths that each operator was traced from, and numbers the classes
that it has made so far in the process. None of it is needed.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError, UnsupportedError, explain

# The writer adds these by itself.
_OWN_RECORDS = (".data/", "version")
_CLASS_NUMBER = re.compile(rb"[./]___torch_mangle_\d+")
# The same kernels in the same order: what is more than rounding is a wrong trace.
_TOLERANCE = 1e-4


def write(graph: nn.Module, file: Path, images: Batch) -> None:
    """Trace `graph`, freeze it and write it, and check the file on one and on all `images` (n, C, H, W).

    Raises UnsupportedError when the model cannot be traced for every batch size, BuildError when the file
    does not compute what `graph` computes.
    """
    batch = torch.from_numpy(images)
    with torch.no_grad():
        try:
            frozen = torch.jit.freeze(torch.jit.trace(graph.eval(), batch, check_trace=False))
        except RuntimeError as error:
            raise UnsupportedError(f"the model cannot be traced to TorchScript ({explain(error)})") from error
    saved = io.BytesIO()
    torch.jit.save(frozen, saved)
    saved.seek(0)
    _copy_records(saved, file)
    _check(graph, file, (batch[:1], batch))


def _copy_records(saved: io.BytesIO, file: Path) -> None:
    reader = torch._C.PyTorchFileReader(saved)
    writer = torch._C.PyTorchFileWriter(str(file))
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
        raise UnsupportedError(
            f"PyTorch cannot read back the model that it has traced ({explain(error)})"
        ) from error
    for batch in batches:
        with torch.inference_mode():
            expected = graph(batch)
            try:
                logits = loaded(batch)
            except RuntimeError as error:
                raise UnsupportedError(
                    f"the trace of the model does not take batches of {len(batch)}, only the size it was "
                    f"traced with ({explain(error)})"
                ) from error
        if logits.shape != expected.shape:
            raise UnsupportedError(
                f"the trace of the model gives logits {tuple(logits.shape)} for a batch of {len(batch)}; its "
                "forward() must not turn sizes into Python numbers"
            )
        # Written so that NaN is not near.
        if not (logits - expected).abs().max() <= _TOLERANCE * expected.abs().max():
            raise BuildError(f"{file} does not compute what the traced model computes")
