"""An exported program as a module of layers again, which techniques and runtimes know by name.

A program calls `aten.conv2d` with weights; quantizers, pruning and the choice of float layers look for
`nn.Conv2d`. Weights keep their qualified names, so that a layer has the name that the author gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, cast

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.nn import functional as F

from quant_explorer.tracing import functional_layers

# Called with the operator's own arguments, in its order.
_FUNCTIONS: Final[Mapping[str, Callable[..., object]]] = {
    "conv1d.default": F.conv1d,
    "conv2d.default": F.conv2d,
    "conv3d.default": F.conv3d,
    "conv1d.padding": F.conv1d,
    "conv2d.padding": F.conv2d,
    "conv3d.padding": F.conv3d,
    "conv_transpose1d.default": F.conv_transpose1d,
    "conv_transpose2d.input": F.conv_transpose2d,
    "conv_transpose3d.input": F.conv_transpose3d,
    "linear.default": F.linear,
    "layer_norm.default": F.layer_norm,
    "relu.default": F.relu,
    "hardtanh.default": F.hardtanh,
    "hardswish.default": F.hardswish,
    "hardsigmoid.default": F.hardsigmoid,
    "silu.default": F.silu,
    "gelu.default": F.gelu,
    "sigmoid.default": torch.sigmoid,
    "tanh.default": torch.tanh,
    "dropout.default": F.dropout,
    "adaptive_avg_pool2d.default": F.adaptive_avg_pool2d,
    "avg_pool2d.default": F.avg_pool2d,
    "max_pool2d.default": F.max_pool2d,
    "add.Tensor": torch.add,
    "mul.Tensor": torch.mul,
    "matmul.default": torch.matmul,
    "mean.dim": torch.mean,
    "cat.default": torch.cat,
    "flatten.using_ints": torch.flatten,
    "reshape.default": torch.reshape,
    "view.default": torch.reshape,
    "permute.default": torch.permute,
    "transpose.int": torch.transpose,
    "softmax.int": torch.softmax,
    "squeeze.dim": torch.squeeze,
    "unsqueeze.default": torch.unsqueeze,
}
# In-place forms, which the functions have an option for.
_IN_PLACE: Final[Mapping[str, Callable[..., object]]] = {
    "relu_.default": F.relu,
    "hardtanh_.default": F.hardtanh,
    "hardswish_.default": F.hardswish,
    "hardsigmoid_.default": F.hardsigmoid,
    "silu_.default": F.silu,
    "dropout_.default": F.dropout,
}
# Of these there is no such form. Nothing else may see the tensor that they change.
_ASSIGNING: Final[Mapping[str, Callable[..., object]]] = {"add_.Tensor": torch.add, "mul_.Tensor": torch.mul}
_NORMS: Final = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_NORM_ARGUMENTS: Final = (
    *("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
)


def raise_layers(program: ExportedProgram) -> fx.GraphModule:
    """Return a module that computes what `program` does, of layers where it has weights of layers.

    What no layer or function of PyTorch stands for is called as the operator it is.
    """
    root = _root(program)
    graph = fx.Graph()
    signature = program.graph_signature
    owned = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in owned:
            copies[node] = graph.get_attr(owned[node.name])
        elif node.op == "get_attr":
            # The branches of torch.cond.
            branch: nn.Module = getattr(program.graph_module, str(node.target))
            root.add_module(str(node.target), branch)
            copies[node] = graph.get_attr(str(node.target))
        elif node.op == "output":
            (result,) = node.args[0]
            graph.output(copies[result])
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    module = fx.GraphModule(root, graph)
    for node in list(module.graph.nodes):
        _name_function(node)
        _make_norm(module, node)
    functional_layers.make_modules(module)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module.eval()


def _root(program: ExportedProgram) -> nn.Module:
    root = nn.Module()
    for name, value in {**program.constants, **program.state_dict}.items():
        owner, leaf = _owner(root, name)
        if isinstance(value, nn.Parameter):
            owner.register_parameter(leaf, value)
        elif isinstance(value, torch.Tensor):
            owner.register_buffer(leaf, value)
    return root


def _owner(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    *parents, leaf = name.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = cast(nn.Module, getattr(root, parent))
    return root, leaf


def _name_function(node: fx.Node) -> None:
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return
    name = str(node.target).removeprefix("aten.")
    if name == "sym_size.int":
        node.op, node.target = "call_method", "size"
    elif name in _FUNCTIONS:
        node.target = _FUNCTIONS[name]
        # The operator has one more, which only chooses a library.
        node.args = node.args[:5] if name == "layer_norm.default" else node.args
    elif name in _IN_PLACE:
        node.target, node.kwargs = _IN_PLACE[name], {**node.kwargs, "inplace": True}
    elif name in _ASSIGNING and len(node.all_input_nodes[0].users) == 1:
        node.target = _ASSIGNING[name]


def _make_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Replace a batch norm by a layer, where all of its tensors are those of one module."""
    if node.target is not torch.ops.aten.batch_norm.default:
        return
    given = dict(zip(_NORM_ARGUMENTS, node.args, strict=False))
    tensors = [given.get(name) for name in _NORM_ARGUMENTS[1:5]]
    owners = {
        str(tensor.target).rpartition(".")[0] if isinstance(tensor, fx.Node) else "" for tensor in tensors
    }
    value = node.meta.get("val")
    kind = _NORMS.get(value.dim()) if isinstance(value, torch.Tensor) else None
    if len(owners) != 1 or "" in owners or kind is None or given["training"]:
        return
    name = owners.pop()
    state = module.get_submodule(name).state_dict()
    layer = kind(
        len(state["running_mean"]),
        eps=cast(float, given["eps"]),
        momentum=cast(float, given["momentum"]),
    )
    if not {"weight", "bias", "running_mean", "running_var"} <= state.keys() <= layer.state_dict().keys():
        return
    layer.load_state_dict(state, strict=False)
    module.set_submodule(name, layer.eval())
    with module.graph.inserting_before(node):
        call = module.graph.call_module(name, (given["input"],))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    module.graph.erase_node(node)
