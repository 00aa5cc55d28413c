"""The graph of a float model with one spelling for each thing, which PyTorch's quantizers read right.

What they misread was found by lowering many small models: a factor `alpha` of a sum is dropped, all calls
of a layer get the scale of the last, a size is taken for a tensor, a view is refused where a quantized
layer returns channels last.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import fx, nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.tracing import functional_layers
from quant_explorer.tracing.valued import trace

# Rewriting only rounds differently; a graph that is traced or rewritten wrongly is far off.
_TOLERANCE: Final = 1e-3
_SUMS: Final[Mapping[object, Callable[..., object]]] = {
    torch.add: torch.add,
    torch.sub: torch.sub,
    **dict.fromkeys(("add", "add_"), torch.add),
    **dict.fromkeys(("sub", "sub_", "subtract", "subtract_"), torch.sub),
    torch.subtract: torch.sub,
}
_OF_VECTORS: Final = 2
_CLAMPS: Final = (torch.clamp, torch.clip, "clamp", "clamp_", "clip", "clip_")
_VIEWS: Final = ("view", "reshape", torch.reshape)


@dataclass(frozen=True)
class FloatGraph:
    """A traced model: `module` computes what it does in evaluation mode.

    `layers` has the qualified name in the model of each layer that has another in the graph, such as the
    second call of a layer. `tensors` has the name in the model of each weight and buffer of the graph.
    """

    module: fx.GraphModule
    layers: Mapping[str, str]
    tensors: Mapping[str, str]


def normalize(
    model: nn.Module, example: Batch, *, trainable: bool = False, whole: tuple[type[nn.Module], ...] = ()
) -> FloatGraph:
    """Trace a copy of `model` and rewrite the graph; `example` are images (n, C, H, W).

    What depends on weights alone is computed once, unless the graph is `trainable`. Layers of the kinds
    `whole` are not looked into. Raises UnsupportedError when the model cannot be traced or the graph
    computes something else for `example`.
    """
    copied = copy.deepcopy(model).eval()
    names = {id(value): name for name, value in _tensors(copied).items()}
    graph = trace(copied, example, whole)
    if not trainable:
        _fold_constants(graph)
    for node in list(graph.graph.nodes):
        _spell_out_alpha(node)
        _spell_out_bounds(node)
        _make_views_general(node)
    layers = functional_layers.make_modules(graph)
    functional_layers.make_resizing_modules(graph)
    layers |= _tell_calls_apart(graph)
    _separate_norms_of_tokens(graph)
    functional_layers.split_paddings(graph)
    _own_read_tensors(graph)
    graph.graph.eliminate_dead_code()
    # Made again, without the weights and buffers that nothing reads any more.
    graph = fx.GraphModule(graph, graph.graph)
    check(graph, model, example)
    tensors = {name: names[id(value)] for name, value in _tensors(graph).items() if id(value) in names}
    return FloatGraph(graph, layers, tensors)


def check(graph: nn.Module, model: nn.Module, example: Batch) -> None:
    """Raise UnsupportedError when `graph` does not compute for images (n, C, H, W) what `model` does.

    One image and all are compared, for a graph that is right for several only.
    """
    evaluated = copy.deepcopy(model).eval()
    for images in (torch.from_numpy(example[:1]), torch.from_numpy(example)):
        with torch.no_grad():
            expected, found = evaluated(images.clone()), graph(images.clone())
        if not isinstance(found, torch.Tensor) or not isinstance(expected, torch.Tensor):
            raise UnsupportedError(
                f"the model returns a {type(expected).__name__}; it must return one tensor of logits"
            )
        if not expected.isfinite().all():
            raise UnsupportedError("the outputs of the float model are not finite on calibration images")
        # Written so that NaN is not near.
        if found.shape != expected.shape or not (
            (found - expected).abs().max() <= _TOLERANCE * expected.abs().max()
        ):
            raise UnsupportedError(
                f"the graph that torch.fx traces computes something else for {len(images)} images than the "
                "model; forward() must not change tensors through views of them, keep values from call to "
                "call, or do another thing for one image than for several"
            )


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _fold_constants(graph: fx.GraphModule) -> None:
    """Compute once what depends on weights and buffers alone, such as standardized weights."""
    for node in list(graph.graph.nodes):
        value = node.meta.get("constant")
        if node.op == "get_attr" or not isinstance(value, torch.Tensor):
            continue
        readers = [user for user in node.users if "constant" not in user.meta]
        if not readers:
            continue
        name = functional_layers.fresh_name(graph, f"{node.name}_constant")
        # As it will be read from a file.
        graph.register_buffer(name, value.contiguous())
        with graph.graph.inserting_before(node):
            constant = graph.graph.get_attr(name)
        constant.meta = dict(node.meta)
        for reader in readers:
            reader.replace_input_with(node, constant)


def _spell_out_alpha(node: fx.Node) -> None:
    """Write a + alpha b as a sum and a product: quantizers of sums do not look at alpha."""
    if node.target not in _SUMS or "alpha" not in node.kwargs:
        return
    first, second = node.args[0], node.kwargs["other"] if "other" in node.kwargs else node.args[1]
    graph, alpha = node.graph, node.kwargs["alpha"]
    with graph.inserting_before(node):
        scaled = graph.call_function(operator.mul, (second, alpha)) if alpha != 1 else second
        total = graph.call_function(_SUMS[node.target], (first, scaled))
    if isinstance(scaled, fx.Node) and scaled is not second:
        scaled.meta = {**node.meta}
    total.meta = dict(node.meta)
    node.replace_all_uses_with(total)
    graph.erase_node(node)


def _spell_out_bounds(node: fx.Node) -> None:
    """Write a clamp to tensors as a maximum and a minimum: quantizers take its bounds for numbers."""
    if node.target not in _CLAMPS:
        return
    given = dict(zip(("input", "min", "max"), node.args, strict=False)) | dict(node.kwargs)
    clamped = given["input"]
    for bound, choose in (("min", torch.maximum), ("max", torch.minimum)):
        if isinstance(limit := given.get(bound), fx.Node):
            with node.graph.inserting_before(node):
                clamped = node.graph.call_function(choose, (clamped, limit))
            clamped.meta = dict(node.meta)
    if isinstance(clamped, fx.Node) and clamped is not given["input"]:
        node.replace_all_uses_with(clamped)
        node.graph.erase_node(node)


def _make_views_general(node: fx.Node) -> None:
    """Let views copy where they must, and leave the length that depends on the number of images open."""
    if node.target not in _VIEWS:
        return
    if node.target == "view":
        # view(dtype) is another thing.
        if any(isinstance(argument, torch.dtype) for argument in node.args):
            return
        node.target = "reshape"
    sizes = node.args[1:]
    nested = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else None
    given = list(sizes if nested is None else nested)
    computed = [place for place, size in enumerate(given) if isinstance(size, fx.Node)]
    if len(computed) == 1 and -1 not in given:
        given[computed[0]] = -1
        node.args = (node.args[0], *given) if nested is None else (node.args[0], tuple(given))


def _tell_calls_apart(graph: fx.GraphModule) -> dict[str, str]:
    """Give each further call of a layer a module of its own, with the same weights; return their names."""
    seen: set[str] = set()
    added: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op != "call_module":
            continue
        name = str(node.target)
        if name not in seen:
            seen.add(name)
            continue
        layer = graph.get_submodule(name)
        number = 1
        while _has(graph, again := f"{name}_call{number + 1}"):
            number += 1
        graph.add_submodule(again, copy.deepcopy(layer, {id(value): value for value in _all_tensors(layer)}))
        node.target = again
        added[again] = name
    return added


def _separate_norms_of_tokens(graph: fx.GraphModule) -> None:
    """Let no BatchNorm1d over the tokens (n, tokens, width) be folded into the linear layer before it.

    PyTorch folds it for any number of dimensions, as if its channels were the layer's.
    """
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.op == "call_module" else None
        if (
            isinstance(source, fx.Node)
            and source.op == "call_module"
            and isinstance(graph.get_submodule(str(node.target)), nn.BatchNorm1d)
            and isinstance(graph.get_submodule(str(source.target)), nn.Linear)
            and source.meta["dimensions"] > _OF_VECTORS
        ):
            with graph.graph.inserting_before(node):
                between = graph.graph.call_method("contiguous", (source,))
            between.meta = dict(source.meta)
            node.replace_input_with(source, between)


def _all_tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _has(graph: fx.GraphModule, name: str) -> bool:
    return any(name == known for known, _ in graph.named_modules())


def _own_read_tensors(graph: fx.GraphModule) -> None:
    """Give weights that are read beside the call of their layer a name of their own: layers get replaced."""
    called = {str(node.target) for node in graph.graph.nodes if node.op == "call_module"}
    for node in graph.graph.nodes:
        if node.op != "get_attr":
            continue
        owner = str(node.target).rpartition(".")[0]
        if any(owner == name or owner.startswith(f"{name}.") for name in called):
            functional_layers.move_to_root(graph, node)
