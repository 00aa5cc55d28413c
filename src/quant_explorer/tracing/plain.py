"""A float model whose layers are PyTorch's plain ones: the form that all techniques and runtimes get."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

from quant_explorer.tracing.functional_layers import make_padding_numbers

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def layers_of(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    """Return the layers of `model` that are of one of `kinds`, by qualified name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def make_plain(model: nn.Module) -> nn.Module:
    """Return a copy of `model` that computes the same with plain layers, or `model` if it has no others.

    Weights that are computed (`torch.nn.utils.parametrizations`, also the older `weight_norm`) are computed
    once, padding="same" becomes numbers, and weights lie in memory in their dimensions' order.
    """
    if not _is_special(model):
        return model
    _compute_hooked(model)
    plain = copy.deepcopy(model).eval()
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module):
            _own_class(module)
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
                # Of several originals PyTorch makes a buffer, which nothing would train.
                _make_parameter(module, name)
        if isinstance(module, _CONVOLUTIONS):
            make_padding_numbers(module)
        for key, name in _hooked(module).items():
            del module._forward_pre_hooks[key]
            for part in [part for part in module._parameters if part.startswith(f"{name}_")]:
                del module._parameters[part]
            # The vectors that spectral norm iterates on.
            for part in [part for part in module._buffers if part.startswith(f"{name}_")]:
                del module._buffers[part]
            _make_parameter(module, name)
    for tensor in _tensors(plain):
        tensor.data = tensor.data.contiguous()
    return plain


def list_computed(model: nn.Module) -> list[str]:
    """Return the weights of `model` that are computed before each call, by qualified name."""
    return [
        f"{layer}.{name}".lstrip(".")
        for layer, module in model.named_modules()
        for name in (
            *(module.parametrizations if parametrize.is_parametrized(module) else ()),
            *_hooked(module).values(),
        )
    ]


def _is_special(model: nn.Module) -> bool:
    return any(
        parametrize.is_parametrized(module)
        or _hooked(module)
        or (isinstance(module, _CONVOLUTIONS) and isinstance(module.padding, str))
        for module in model.modules()
    ) or any(not tensor.is_contiguous() for tensor in _tensors(model))


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _hooked(module: nn.Module) -> dict[int, str]:
    """Return the hooks that compute a weight before each call, with its name."""
    kinds = ("WeightNorm", "SpectralNorm")
    return {
        key: str(vars(hook)["name"])
        for key, hook in module._forward_pre_hooks.items()
        if type(hook).__name__ in kinds
    }


def _compute_hooked(model: nn.Module) -> None:
    """Compute such weights now, without gradients: with them a model cannot be copied."""
    with torch.no_grad():
        for module in model.modules():
            for key in _hooked(module):
                module._forward_pre_hooks[key](module, ())


def _own_class(module: nn.Module) -> None:
    """Copies share the class that a parametrization makes, from which its removal takes the weight."""
    kind = type(module)
    own = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, own)


def _make_parameter(module: nn.Module, name: str) -> None:
    value = nn.Parameter(getattr(module, name).detach().clone())
    delattr(module, name)
    module.register_parameter(name, value)
