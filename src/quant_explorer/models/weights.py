"""Weights on disk: read without running code, checked against the model, written atomically."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.errors import ModelError, StorageError, explain

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pt", ".pth")
# Where training programs put the state dict in a checkpoint that holds more.
NESTED_UNDER = ("state_dict", "model")
_LISTED = 10


def load_weights(module: nn.Module, path: Path) -> None:
    """Load the weights in `path` into `module`.

    `.safetensors`, or `.pt` and `.pth` read with `weights_only=True`: a state dict, or a dict that holds
    one under "state_dict" or "model". A batch norm's `num_batches_tracked` may be missing.

    Raises ModelError when the file cannot be read, holds more than tensors, or does not fit: missing
    and unexpected names and differing shapes are listed; or when a weight is not finite.
    """
    state = read_state(path)
    own = module.state_dict()
    shapes = {
        name: f"{name} {tuple(tensor.shape)}, model {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    }
    fitting = {name: tensor for name, tensor in state.items() if name not in shapes}
    result = module.load_state_dict(fitting, strict=False)
    missing = [name for name in result.missing_keys if name not in shapes]
    problems = [
        f"{label}: {_listed(names)}"
        for label, names in (
            ("missing", missing),
            ("unexpected", result.unexpected_keys),
            ("of another shape", list(shapes.values())),
        )
        if names
    ]
    if problems:
        raise ModelError(f"{path}: these weights do not fit the model; {'; '.join(problems)}{_hint(state)}")
    check_finite(module, str(path))


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in `path`; raises ModelError when it cannot be read or holds something else."""
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path}: unknown kind of weights. Allowed: {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return _state_dict(path, content)


def check_finite(module: nn.Module, where: str) -> None:
    """Raise ModelError naming the tensors of `module` that hold NaN or infinity."""
    bad = [
        name
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise ModelError(f"{where}: NaN or infinite weights in {_listed(bad)}")


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


def _read_safetensors(path: Path) -> object:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({explain(error)})") from error


def _read_pickle(path: Path) -> object:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds something else than tensors, or is damaged; loading it could run code, so it "
            "is refused. Save the weights alone: torch.save(model.state_dict(), path)."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a readable PyTorch checkpoint ({explain(error)})") from error


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    from torch import Tensor

    if isinstance(content, Mapping):
        content = next(
            (content[key] for key in NESTED_UNDER if isinstance(content.get(key), Mapping)), content
        )
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path}: no state dict in it, but a {type(content).__name__}")
    odd = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise ModelError(
            f"{path}: not a state dict: {_listed(odd)} hold no tensors. Allowed: a state dict, or a dict "
            f"that holds one under {' or '.join(repr(key) for key in NESTED_UNDER)}."
        )
    return dict(content)


def _hint(state: Mapping[str, Tensor]) -> str:
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            return f". All its names start with {prefix!r}: save the state dict of the wrapped model."
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
