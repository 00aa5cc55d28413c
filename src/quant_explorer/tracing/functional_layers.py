"""Convolutions and linear layers called as functions become modules, which is what gets quantized.

PyTorch's FX quantization replaces modules well and functions badly: it asks for arguments with a default.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeGuard, cast

import torch
from torch import fx, nn
from torch.nn import functional as F

_CONVOLUTION: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED: Final = (*_CONVOLUTION[:5], "output_padding", "groups", "dilation")
_LINEAR: Final = _CONVOLUTION[:3]
_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class _Kind:
    """How a function is called, and the layer that does the same."""

    layer: type[nn.Module]
    arguments: tuple[str, ...]


KINDS: Final[Mapping[object, _Kind]] = {
    F.linear: _Kind(nn.Linear, _LINEAR),
    F.conv1d: _Kind(nn.Conv1d, _CONVOLUTION),
    F.conv2d: _Kind(nn.Conv2d, _CONVOLUTION),
    F.conv3d: _Kind(nn.Conv3d, _CONVOLUTION),
    F.conv_transpose1d: _Kind(nn.ConvTranspose1d, _TRANSPOSED),
    F.conv_transpose2d: _Kind(nn.ConvTranspose2d, _TRANSPOSED),
    F.conv_transpose3d: _Kind(nn.ConvTranspose3d, _TRANSPOSED),
}
# What PyTorch resizes INT8 values by; antialiasing has no layer.
_RESIZING: Final = ("nearest", "nearest-exact", "bilinear", "area")
_INTERPOLATE: Final = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
# Padding that PyTorch's quantized convolutions do themselves, by the number of dimensions.
_KNOWN_PADDING: Final[Mapping[type[nn.Module], tuple[str, ...]]] = {nn.Conv3d: ("zeros",)}


def make_modules(graph: fx.GraphModule) -> dict[str, str]:
    """Replace each function whose weights are the model's own by a module with them.

    Returns the names in the model of the layers whose weights they are, where the module has another name.
    """
    called = {str(node.target) for node in graph.graph.nodes if node.op == "call_module"}
    names: dict[str, str] = {}
    for node in list(graph.graph.nodes):
        kind = KINDS.get(node.target)
        if kind is None:
            continue
        given = dict(zip(kind.arguments, node.args, strict=False)) | dict(node.kwargs)
        weight, bias = given.get("weight"), given.get("bias")
        if not _is_tensor(weight) or not (bias is None or _is_tensor(bias)):
            continue
        layer = _make(kind, graph, given)
        owner, _, leaf = str(weight.target).rpartition(".")
        name = owner
        if not owner or leaf != "weight" or owner in called or list(graph.get_submodule(owner).children()):
            name = fresh_name(graph, f"{str(weight.target).replace('.', '_')}_{node.name}")
            names[name] = owner
        called.add(name)
        if name == owner:
            _move_others(graph, owner, layer)
        _set_module(graph, name, layer)
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (given["input"],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    return {name: owner for name, owner in names.items() if owner}


def _is_tensor(argument: object) -> TypeGuard[fx.Node]:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


def _make(kind: _Kind, graph: fx.GraphModule, given: Mapping[str, fx.node.Argument]) -> nn.Module:
    weight = _parameter(graph, given["weight"])
    settings = {name: given[name] for name in kind.arguments[3:] if name in given}
    has_bias = given.get("bias") is not None
    outputs, inputs, *kernel = weight.shape
    make: Callable[..., nn.Module] = kind.layer
    with torch.device("meta"):
        if kind.layer is nn.Linear:
            layer = make(inputs, outputs, bias=has_bias)
        else:
            groups = cast(int, settings.get("groups", 1))
            inputs, outputs = (
                (outputs, inputs * groups)
                if "output_padding" in kind.arguments
                else (inputs * groups, outputs)
            )
            layer = make(inputs, outputs, tuple(kernel), bias=has_bias, **settings)
    layer.register_parameter("weight", weight)
    if has_bias:
        layer.register_parameter("bias", _parameter(graph, given["bias"]))
    return layer.eval()


def _parameter(graph: fx.GraphModule, node: fx.node.Argument) -> nn.Parameter:
    assert isinstance(node, fx.Node)
    owner, _, leaf = str(node.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), leaf)
    assert isinstance(value, torch.Tensor)
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)


def _move_others(graph: fx.GraphModule, owner: str, layer: nn.Module) -> None:
    """Move to the root what is read of `owner` and `layer`, which will replace it, does not have."""
    for node in graph.graph.nodes:
        reader, _, leaf = str(node.target).rpartition(".")
        if node.op == "get_attr" and reader == owner and not hasattr(layer, leaf):
            move_to_root(graph, node)


def move_to_root(graph: fx.GraphModule, node: fx.Node) -> None:
    """Give the graph itself the weight or buffer that `node` reads of a layer."""
    owner, _, leaf = str(node.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), leaf)
    name = fresh_name(graph, str(node.target).replace(".", "_"))
    if isinstance(value, nn.Parameter):
        graph.register_parameter(name, value)
    else:
        graph.register_buffer(name, value)
    node.target = name


def _set_module(graph: fx.GraphModule, name: str, layer: nn.Module) -> None:
    if not graph.add_submodule(name, layer):
        graph.set_submodule(name, layer)


def make_resizing_modules(graph: fx.GraphModule) -> None:
    """Replace resizing that has no INT8 kernel by modules: functions between layers cannot stay in float."""
    for node in list(graph.graph.nodes):
        given = dict(zip(_INTERPOLATE, node.args, strict=False)) | dict(node.kwargs)
        source, antialias = given.pop("input", None), given.pop("antialias", False)
        if node.target is not F.interpolate or antialias or is_resizing_in_int8(given):
            continue
        make = cast(Callable[..., nn.Module], nn.Upsample)
        name = fresh_name(graph, node.name)
        graph.add_submodule(name, make(**given).eval())
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (source,))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)


def is_resizing_in_int8(settings: Mapping[str, object]) -> bool:
    """Say whether PyTorch resizes INT8 values so, by `mode`."""
    return settings.get("mode", "nearest") in _RESIZING


def split_paddings(graph: fx.GraphModule) -> None:
    """Pad by a function before convolutions whose padding PyTorch's quantized ones do not have."""
    for node in list(graph.graph.nodes):
        layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, _Convolution):
            continue
        make_padding_numbers(layer)
        if layer.padding_mode in _KNOWN_PADDING.get(type(layer), ("zeros", "reflect")):
            continue
        # As nn.Conv2d does it itself.
        widths, mode = list(layer._reversed_padding_repeated_twice), layer.padding_mode
        plain = copy.copy(layer)
        plain.padding_mode, plain.padding = "zeros", (0,) * len(layer.padding)
        plain._reversed_padding_repeated_twice = [0] * len(widths)
        graph.set_submodule(str(node.target), plain)
        with graph.graph.inserting_before(node):
            padded = graph.graph.call_function(F.pad, (node.args[0], widths), {"mode": mode})
        padded.meta = dict(node.meta)
        node.replace_input_with(node.args[0], padded)


def make_padding_numbers(layer: _Convolution) -> None:
    """Write padding="same" and "valid" as numbers, in place.

    An even kernel needs one more at the end than at the beginning, which is padding by a function, as for
    the modes that have a name.
    """
    if not isinstance(layer.padding, str):
        return
    # Set by nn.Conv2d: first and last for each dimension, the last dimension first.
    widths = list(layer._reversed_padding_repeated_twice)
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    if layer.padding_mode == "zeros" and any(first != last for first, last in pairs):
        # What torch.nn.functional.pad calls padding with zeros: nn.Conv2d calls it for every other mode.
        layer.padding_mode = cast(Literal["zeros"], "constant")
    layer.padding = tuple(first for first, _ in pairs)


def fresh_name(graph: fx.GraphModule, wanted: str) -> str:
    """Return `wanted`, with the first number that makes it new in the graph's root."""
    name, number = wanted, 0
    while hasattr(graph, name):
        number += 1
        name = f"{wanted}_{number}"
    return name
