"""Weights on disk: read without running code, checked against the model, written atomically."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.errors import ModelError, StorageError, explain
from quant_explorer.core.units import list_some
from quant_explorer.models.checkpoint import read_checkpoint, strip_prefixes

if TYPE_CHECKING:
    from torch import Tensor, nn

_LISTED = 10


def load_weights(module: nn.Module, path: Path, key: str = "") -> tuple[str, ...]:
    """Load the weights in `path` into `module`, and return what had to be decided to find them.

    See `checkpoint.read_checkpoint` for files and `key`, `checkpoint.strip_prefixes` for names. A batch
    norm's `num_batches_tracked` may be missing.

    Raises ModelError when the file cannot be read, holds more than tensors, or does not fit: missing
    and unexpected names, differing shapes, and numbers of another type (integers, quantized, sparse) are
    listed; or when a weight is not finite.
    """
    found = read_checkpoint(path, key)
    own = module.state_dict()
    stripped = strip_prefixes(found.state, set(own))
    state = stripped.state
    shapes = {
        name: f"{name} {tuple(tensor.shape)}, model {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    }
    kinds = {
        name: f"{name} {_kind(tensor)}, model {_kind(own[name])}"
        for name, tensor in state.items()
        if name in own and name not in shapes and not _can_become(tensor, own[name])
    }
    fitting = {name: tensor for name, tensor in state.items() if name not in shapes and name not in kinds}
    result = module.load_state_dict(fitting, strict=False)
    missing = [name for name in result.missing_keys if name not in shapes and name not in kinds]
    problems = [
        f"{label}: {list_some(names, _LISTED)}"
        for label, names in (
            ("missing", missing),
            ("unexpected", result.unexpected_keys),
            ("of another shape", list(shapes.values())),
            ("of another type", list(kinds.values())),
        )
        if names
    ]
    notes = (*found.notes, *stripped.notes)
    if problems:
        taken = f" ({'; '.join(notes)})" if notes else ""
        raise ModelError(f"{path}: these weights do not fit the model; {'; '.join(problems)}{taken}")
    check_finite(module, str(path))
    return notes


def _can_become(tensor: Tensor, own: Tensor) -> bool:
    """Whether `tensor` holds the numbers themselves; those of an integer or quantized type need a scale."""
    import torch

    plain = tensor.layout == torch.strided and tensor.device.type != "meta" and not tensor.is_quantized
    return plain and (tensor.is_floating_point() or tensor.dtype == own.dtype or not own.is_floating_point())


def _kind(tensor: Tensor) -> str:
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.device.type == "meta":
        return f"{kind} without values (device meta)"
    return kind if tensor.layout == torch.strided else f"{kind} ({str(tensor.layout).removeprefix('torch.')})"


def check_finite(module: nn.Module, where: str) -> None:
    """Raise ModelError naming the tensors of `module` that hold NaN or infinity."""
    bad = [
        name
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise ModelError(f"{where}: NaN or infinite weights in {list_some(bad, _LISTED)}")


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors, atomically; raises StorageError when that is not possible."""
    import safetensors.torch

    # Cloned, for safetensors refuses tensors that share memory (tied weights, views).
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    try:
        write_atomically(path, safetensors.torch.save(state, metadata={"format": "pt"}))
    except OSError as error:
        raise StorageError(
            f"{path}: weights cannot be written ({error.strerror or explain(error)})"
        ) from error


def parameter_digest(module: nn.Module) -> str:
    """SHA-256 (hex) over names, dtypes, shapes and bytes of the state dict, sorted by name."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
