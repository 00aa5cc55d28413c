"""A checkpoint file: read without running code, and the state dict inside of it found and named."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.core.errors import ModelError, explain
from quant_explorer.core.units import list_some

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt")
# Where training programs put a state dict, the best of several first: averaged weights are what is evaluated.
KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "weights",
)
# What wrappers of a model put before the names of its weights: DataParallel, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")
# What wrappers of a part of a model put into them.
_INNER = re.compile(r"(^|\.)(?:(?:module|_orig_mod)\.)+")
# Beside the weights: how often torch.optim.swa_utils.AveragedModel averaged, and what thop counted.
_COUNTERS = ("n_averaged", "total_ops", "total_params")
_DEEPEST = 2
_LISTED = 10
# What PyTorch's reader raises for bytes that are no checkpoint.
_DAMAGED = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)
_SAVE = "torch.save(model.state_dict(), path)"


@dataclass(frozen=True)
class Checkpoint:
    """A state dict with what had to be decided to find it, in sentences."""

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path, key: str = "") -> Checkpoint:
    """Return the state dict in `path`, the one under `key` ("a.b" for nested ones) where that is given.

    `.safetensors` files hold nothing else; others are read with `weights_only=True`. Raises ModelError when
    the file cannot be read, holds something else, or has no such key.
    """
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path}: unknown kind of weights. Allowed: {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ModelError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    _check_content(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    found = dict(_candidates(content))
    if key:
        if key not in found:
            raise ModelError(f"--weights-key {key}: no weights there in {path}. {_allowed(found, content)}")
        return Checkpoint(found[key], (f"Weights: those under {key!r} in {path.name}",))
    if not found:
        raise ModelError(f"{path}: no state dict in it, but {_describe(content)}")
    chosen = min(found, key=_rank)
    if not chosen:
        return Checkpoint(found[chosen])
    others = [repr(name) for name in found if name != chosen]
    choice = f"; there are others under {', '.join(others)}, for --weights-key" if others else ""
    return Checkpoint(found[chosen], (f"Weights: those under {chosen!r} in {path.name}{choice}",))


def strip_prefixes(state: dict[str, Tensor], own: set[str]) -> Checkpoint:
    """Return the weights under the names of the model, `own`, without the prefixes of wrappers.

    What else a wrapper has, weights of a loss for instance, has no such prefix and is left out.
    """
    notes: list[str] = []
    counters = {name for name in state if name.rpartition(".")[2] in _COUNTERS and name not in own}
    state = {name: tensor for name, tensor in state.items() if name not in counters}
    while not own & state.keys():
        counts = {prefix: sum(name.startswith(prefix) for name in state) for prefix in PREFIXES}
        prefix = max(counts, key=counts.__getitem__)
        if not counts[prefix]:
            prefix = _common_prefix(set(state), own)
        if not prefix:
            break
        others = [name for name in state if not name.startswith(prefix)]
        state = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
        notes.append(f"Weights: the prefix {prefix!r} was taken off {'the' if others else 'all'} names")
        if others:
            notes.append(f"Weights: left out without the prefix {prefix!r}: {list_some(others, _LISTED)}")
    wrapped = {name: _INNER.sub(r"\1", name) for name in state if name not in own}
    wrapped = {name: plain for name, plain in wrapped.items() if plain in own and plain not in state}
    if wrapped:
        notes.append(f"Weights: names without those of wrappers inside: {list_some(wrapped, _LISTED)}")
    return Checkpoint({wrapped.get(name, name): tensor for name, tensor in state.items()}, tuple(notes))


def _common_prefix(names: set[str], own: set[str]) -> str:
    """Return what all names of the model have before them, the attribute of a trainer for instance; or ""."""
    for name in sorted(names):
        part, _, _ = name.partition(".")
        while part != name:
            if all(f"{part}.{wanted}" in names for wanted in own):
                return f"{part}."
            part = f"{part}.{name[len(part) + 1 :].partition('.')[0]}"
    return ""


def _rank(key: str) -> tuple[int, int]:
    first = key.partition(".")[0]
    return (KEYS.index(first) if first in KEYS else -1 if not key else len(KEYS), len(key))


def _candidates(content: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping of names to tensors with the key it lies under, "" for the whole."""
    from torch import Tensor

    if not isinstance(content, Mapping) or not content:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    if len(named) == len(content) and all(isinstance(value, Tensor) for value in named.values()):
        yield prefix, dict(named)
    elif depth < _DEEPEST:
        for name, value in named.items():
            yield from _candidates(value, f"{prefix}.{name}" if prefix else name, depth + 1)


def _allowed(found: Mapping[str, object], content: object) -> str:
    if not found:
        return f"The file holds {_describe(content)}."
    return f"Allowed: {', '.join(name or '(no key)' for name in found)}."


def _describe(content: object) -> str:
    from torch import Tensor

    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    others = [
        f"{name} ({type(value).__name__})" for name, value in content.items() if not isinstance(value, Tensor)
    ]
    if not content:
        return "an empty dict"
    if len(others) < len(content):
        return f"a dict with something else than tensors in it: {list_some(others, _LISTED)}"
    return f"a dict whose {list_some(content, _LISTED)} hold no tensors alone"


def _check_content(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise ModelError(f"{path}: not a readable checkpoint ({error.strerror or explain(error)})") from error
    if not start:
        raise ModelError(f"{path}: not a readable checkpoint, for it is empty (0 bytes)")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path}: not a readable checkpoint, but a pointer of Git LFS; fetch it: git lfs pull"
        )
    if _is_torchscript(path):
        raise ModelError(
            f"{path}: not a readable PyTorch checkpoint of weights, but a TorchScript program, which could "
            "run code. If you trust it, save its weights: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pt')."
        )


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return any(name.endswith("/constants.pkl") for name in names)


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
            f"{path}: holds something else than tensors{_imports(path)}, or is damaged; loading it could run "
            f"code, so it is refused. Save the weights alone: {_SAVE}."
        ) from error
    except _DAMAGED as error:
        raise ModelError(
            f"{path}: not a readable PyTorch checkpoint; it is damaged, cut off or something else "
            f"({explain(error)})"
        ) from error


def _imports(path: Path) -> str:
    """Name what the pickle would import; the list is read without running it."""
    import torch

    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, *_DAMAGED):
        return ""
    return f" (it asks to import {', '.join(sorted(names)[:_LISTED])})" if names else ""
