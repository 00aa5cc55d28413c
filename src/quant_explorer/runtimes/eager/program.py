"""A traced PyTorch module as files: `model.py`, plain generated Python, and `weights.pt`, its state dict.

The two are all a deployment needs, with PyTorch alone:

    from model import Model
    model = Model()
    model.load_state_dict(torch.load("weights.pt", weights_only=True))
"""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType

import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError, UnsupportedError, explain

MODEL_FILE = "model.py"
WEIGHTS_FILE = "weights.pt"

_NOT_REPRODUCED = (
    *(AttributeError, ImportError, NameError, RuntimeError, SyntaxError, TypeError, UnpicklingError),
)

_HEADER = '''"""Generated from a traced model. Load it with:

    model = Model()
    model.load_state_dict(torch.load("weights.pt", weights_only=True))
    model.eval()
"""

import torch
'''

_ENGINE = """
torch.backends.quantized.engine = {engine!r}


def _call_directly(forward):
    # Before each call PyTorch looks for __torch_function__ on the packed weights, which costs as much as
    # a small layer. They have none.
    def call(self, images):
        with torch._C.DisableTorchFunctionSubclass():
            return forward(self, images)

    return call
"""

_ATTACH = """

def _owner(root, name):
    *parents, leaf = name.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            _attach(root, parent, torch.nn.Module())
        root = getattr(root, parent)
    return root, leaf


def _attach(owner, name, module):
    owner.add_module(name, module)
    # Found at once; torch.nn.Module.__getattr__ is called only after an AttributeError was made and dropped.
    owner.__dict__[name] = module


def _module(root, name, module):
    owner, leaf = _owner(root, name)
    _attach(owner, leaf, module)


def _buffer(root, name, shape, dtype):
    owner, leaf = _owner(root, name)
    owner.register_buffer(leaf, torch.empty(shape, dtype=dtype))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
"""


def write(graph: torch.fx.GraphModule, folder: Path, example: Batch, *, engine: str | None) -> None:
    """Write `graph` as source and state dict, and prove that they give its outputs to the last bit.

    `engine` is the quantized engine that the weights are packed for when they are loaded. Raises
    UnsupportedError for a layer whose constructor cannot be reproduced, BuildError when the files
    do not compute what `graph` computes.
    """
    _keep_buffers(graph)
    (folder / MODEL_FILE).write_text(_source(graph, engine))
    torch.save(graph.state_dict(), folder / WEIGHTS_FILE)
    try:
        model = read(folder)
    except _NOT_REPRODUCED as error:
        raise UnsupportedError(
            f"a layer of the model cannot be made again from source and a state dict ({explain(error)})"
        ) from error
    images = torch.from_numpy(example)
    with torch.inference_mode():
        expected, loaded = graph(images), model(images)
    if not torch.equal(expected, loaded):
        raise BuildError(f"{folder / MODEL_FILE} does not compute what the traced model computes")


def read(folder: Path) -> nn.Module:
    """Load what `write` wrote, in evaluation mode."""
    module: nn.Module = _import(folder / MODEL_FILE).Model()
    module.load_state_dict(torch.load(folder / WEIGHTS_FILE, weights_only=True))
    return module.eval()


def _import(path: Path) -> ModuleType:
    # Not by importlib: an artifact is a closed set of files, without a __pycache__ beside them.
    module = ModuleType("quant_explorer_artifact")
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def _source(graph: torch.fx.GraphModule, engine: str | None) -> str:
    code = graph.graph.python_code("self")
    lines: list[str] = []
    imports: set[str] = set()
    for name in dict.fromkeys(_called(graph)):
        module = graph.get_submodule(name)
        expression = _constructor(module, name, imports)
        lines.append(f"        _module(self, {name!r}, {expression}{_cast(module)})")
    for name, tensor in _own_tensors(graph).items():
        lines.append(f"        _buffer(self, {name!r}, {tuple(tensor.shape)!r}, {tensor.dtype})")
    imports.update(
        _import_line(name, value)
        for name, value in code.globals.items()
        if name != "torch" and re.search(rf"\b{name}\b", code.src)
    )
    pack = _ENGINE.format(engine=engine) if engine else ""
    decorator = "    @_call_directly\n" if engine else ""
    # torch.fx marks functions that are not to be traced again, on lines before forward().
    source = code.src[code.src.index("def forward") :]
    forward = "".join(f"    {line}\n" if line else "\n" for line in source.strip("\n").splitlines())
    body = "\n".join(lines) or "        pass"
    return f"{_HEADER}{''.join(sorted(imports))}{pack}{_ATTACH}{body}\n\n{decorator}{forward}"


def _called(graph: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]


def _keep_buffers(graph: torch.fx.GraphModule) -> None:
    """Make the buffers that `graph` reads part of its state dict, also those declared non-persistent."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            parent, _, leaf = str(node.target).rpartition(".")
            owner = graph.get_submodule(parent)
            buffers = dict(owner.named_buffers(recurse=False))
            if leaf in buffers:
                owner.register_buffer(leaf, buffers[leaf], persistent=True)


def _own_tensors(graph: torch.fx.GraphModule) -> dict[str, torch.Tensor]:
    inside = tuple(f"{name}." for name in _called(graph))
    own = {name: value for name, value in graph.state_dict().items() if not name.startswith(inside)}
    for name, value in own.items():
        if not isinstance(value, torch.Tensor):
            raise UnsupportedError(
                f"the packed weights {name!r} of a functional convolution or linear cannot be written to a "
                "state dict; use nn.Conv2d or nn.Linear in the model"
            )
    return own


def _constructor(module: nn.Module, name: str, imports: set[str]) -> str:
    kind = type(module)
    imports.add(f"import {kind.__module__}\n")
    path = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(module, nn.Sequential):
        children = ", ".join(_constructor(child, name, imports) for child in module.children())
        return f"{path}({children})"
    arguments = []
    for setting in _settings(kind):
        if setting in ("device", "dtype") or not hasattr(module, setting):
            continue
        value = _literal(getattr(module, setting), setting)
        if value is None:
            raise UnsupportedError(
                f"layer {name!r} ({path}) has a setting {setting!r} that cannot be written as source"
            )
        arguments.append(f"{setting}={value}")
    return f"{path}({', '.join(arguments)})"


def _settings(kind: type[nn.Module]) -> list[str]:
    """Return the names of what a layer's constructor takes."""
    if not issubclass(kind, nn.RNNBase):
        return list(inspect.signature(kind.__init__).parameters)[1:]
    # These hand any arguments on to the base class, after its `mode`.
    names = list(inspect.signature(nn.RNNBase.__init__).parameters)[2:]
    own = {nn.LSTM: (), nn.RNN: ("nonlinearity",)}.get(kind, ())
    return [*own, *(name for name in names if kind is nn.LSTM or name != "proj_size")]


def _cast(module: nn.Module) -> str:
    dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    return "".join(f".to({dtype})" for dtype in dtypes - {torch.float32})


def _literal(value: object, name: str) -> str | None:
    if name == "bias":
        # Parameter, None, bool, or (quantized layers) a method; all mean "is there one".
        present = value() is not None if callable(value) else value is not None and value is not False
        return repr(present)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return repr(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    plain = (bool, int, float, str, type(None))
    if isinstance(value, plain) or (
        isinstance(value, tuple | list) and all(isinstance(item, plain) for item in value)
    ):
        return repr(value)
    return None


def _import_line(name: str, value: object) -> str:
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}\n"
    if isinstance(value, float):
        return f"{name} = float({str(value)!r})\n"
    module, qualified = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module is None or qualified is None:
        raise UnsupportedError(f"the traced model refers to {value!r}, which cannot be imported by name")
    return f"from {module} import {qualified} as {name}\n"
