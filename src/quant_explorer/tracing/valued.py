"""Traces a model to a torch.fx graph while it computes: sizes are numbers, only the images are unknown.

torch.fx has stand-ins for tensors that know nothing, so that `float(x.shape[2])`, a comparison of sizes or a
size in a view ends the trace or becomes an operation, which FX quantization takes for one on tensors. Here
each stand-in carries its value for two batches of different length: what is a number, and the same for both,
is that number. Whatever differs depends on the number of images and stays an operation.
Source: PyTorch, `torch.fx`, https://docs.pytorch.org/docs/2.9/fx.html.
"""

from __future__ import annotations

import functools
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final, SupportsIndex, cast
from unittest import mock

import numpy as np
import torch
from torch import fx, nn
from torch.fx import _symbolic_trace
from torch.fx.node import map_aggregate
from torch.fx.proxy import TraceError

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.tracing import attention
from quant_explorer.tracing.reasons import TENSOR_ADVICE, explain_trace
from quant_explorer.tracing.sizes import joined_sizes

# Two lengths that are no usual size of anything else and not one, which broadcasts.
_LENGTHS: Final = (2, 3)
# What Python code can compute with while it is traced.
_PLAIN: Final = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.layout)
_FACTORIES: Final = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")

_Values = tuple[object, object]


def trace(model: nn.Module, example: Batch, whole: tuple[type[nn.Module], ...] = ()) -> fx.GraphModule:
    """Trace `model`, which is in evaluation mode and becomes part of the graph.

    `example` are images (n, C, H, W), of which a few are used. Layers of the kinds `whole` stay calls.

    Nodes have in `meta`: "number" (True for Python numbers), "dimensions", "unreal" (True for tensors of
    integers, truth values and complex numbers), "magnitude" (the largest finite absolute value of a float
    tensor), "finite", "constant" (the value of what depends on weights and buffers alone), "scope" (the
    qualified name of the module that makes the call). Raises UnsupportedError with the line of the user's
    code that cannot be traced.
    """
    try:
        # Functions marked by torch.fx.wrap are looked into: most are marked because of sizes alone.
        with mock.patch.dict(_symbolic_trace._wrapped_fns_to_patch, clear=True):
            return _trace(model, example, whole)
    except FAILURES:
        pass
    try:
        return _trace(model, example, whole)
    except FAILURES as error:
        raise UnsupportedError(
            f"the model cannot be traced to a graph by torch.fx: {explain_trace(error)}"
        ) from error


# Tracing calls the user's own forward() with stand-ins for tensors, which fails in any of these ways.
FAILURES: Final = (
    *(AssertionError, AttributeError, LookupError, NameError, RuntimeError, StopIteration),
    *(TypeError, ValueError),
)


def _trace(model: nn.Module, example: Batch, whole: tuple[type[nn.Module], ...]) -> fx.GraphModule:
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # Its conditions look at values, and its operators do all of a layer at once.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), joined_sizes() as restore:
            tracer = _ValueTracer(example, whole)
            graph = tracer.trace(model)
            restore(graph)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    for node in graph.nodes:
        node.meta["scope"] = tracer.node_name_to_scope[node.name][0]
        # Annotations become names in generated code, some of which nobody can import.
        node.type = None
    return fx.GraphModule(tracer.root, graph)


class _ValueProxy(fx.Proxy):
    """Stands for `values`, those of the two batches; `constant` when neither depends on the images."""

    def __init__(self, node: fx.Node, tracer: _ValueTracer, values: _Values, *, constant: bool) -> None:
        super().__init__(node, tracer)
        self.values = values
        self.constant = constant

    def __getattr__(self, name: str) -> fx.proxy.Attribute:
        found = getattr(self.values[0], name)
        if callable(found):
            return super().__getattr__(name)
        result = self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return cast(fx.proxy.Attribute, result)

    def __len__(self) -> int:
        lengths = {len(cast(tuple[object, ...], value)) for value in self.values}
        if len(lengths) > 1:
            raise TraceError(f"the number of images is taken for a Python number; {TENSOR_ADVICE}")
        return lengths.pop()

    def __iter__(self) -> Iterator[fx.Proxy]:
        take = cast(Callable[..., fx.Proxy], operator.getitem)
        return (take(self, index) for index in range(len(self)))

    def __setitem__(self, index: object, value: object) -> None:
        raise TraceError("writes to a part of a tensor; join parts by torch.cat() or torch.where()")

    def __bool__(self) -> bool:
        raise TraceError(self._unknown())

    __int__ = __float__ = __index__ = __bool__

    def _unknown(self) -> str:
        what = "a value computed from images" if isinstance(self.values[0], torch.Tensor) else "their number"
        return f"{what} is taken for a Python number; {TENSOR_ADVICE}"


class _Sizes(tuple[object, ...]):
    """A shape of which some items are known; the others are stand-ins."""

    def __getitem__(self, index: SupportsIndex | slice) -> object:  # type: ignore[override]
        found = super().__getitem__(index)
        return _Sizes(cast(tuple[object, ...], found)) if isinstance(index, slice) else found

    def numel(self) -> object:
        """Return the product, as torch.Size does."""
        return math.prod(cast(tuple[int, ...], self))


class _ValueTracer(fx.Tracer):
    def __init__(self, example: Batch, kept: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._kept = kept
        self._batches = tuple(
            torch.from_numpy(example[np.arange(length) % len(example)]) for length in _LENGTHS
        )
        self._opened: nn.Module | None = None
        # By the tensor, which they keep.
        self._proxies: defaultdict[int, list[_ValueProxy]] = defaultdict(list)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Look into PyTorch's own modules of modules, but for attention with masks, which is one operator.

        A layer with hooks is looked into as well: so what they compute is recorded, for files have no hooks.
        """
        if isinstance(m, self._kept):
            return True
        whole = not any(True for _ in m.children()) or isinstance(m, nn.MultiheadAttention)
        whole = whole and not (m._forward_hooks or m._forward_pre_hooks)
        return whole and m is not self._opened and super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        """Record the call of a leaf, or what a module does inside."""
        if isinstance(m, nn.MultiheadAttention):
            tokens = kwargs.get("query", args[0] if args else None)
            value = tokens.values[0] if isinstance(tokens, _ValueProxy) else None
            dimensions = value.dim() if isinstance(value, torch.Tensor) else 0
            if attention.is_plain(m, args, kwargs, dimensions):
                self._opened, forward = m, functools.partial(attention.attend, m)
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(
        self,
        kind: str,
        target: fx.node.Target,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        name: str | None = None,
        type_expr: object = None,
        proxy_factory_fn: Callable[[fx.Node], fx.Proxy] | None = None,
    ) -> fx.Proxy:
        """Record a call, or return what it gives where that is a number for any number of images."""
        sources = _proxies(args, kwargs)
        before = [_version(source) for source in sources]
        values = self._compute(kind, target, args, kwargs)
        known = type(values[0]) is type(values[1]) and _is_plain(values[0]) and values[0] == values[1]
        # A tensor that takes nothing but its type from another, such as a mask to be filled in.
        if known or (target in _FACTORIES and len(sources) == 1):
            return cast(fx.Proxy, values[0])
        proxy = self._record(kind, target, args, kwargs, name, values, sources)
        for source, version in zip(sources, before, strict=True):
            # A call in place: whoever reads this tensor from now on reads the result.
            if source.values[0] is values[0] and _version(source) != version:
                for same in self._proxies[id(values[0])]:
                    same.node = proxy.node
        if isinstance(values[0], torch.Size):
            return cast(fx.Proxy, _Sizes(proxy))
        return proxy

    def _record(
        self,
        kind: str,
        target: fx.node.Target,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        name: str | None,
        values: _Values,
        sources: list[_ValueProxy],
    ) -> _ValueProxy:
        constant = kind == "get_attr" or (bool(sources) and all(source.constant for source in sources))

        def make(node: fx.Node) -> fx.Proxy:
            return _ValueProxy(node, self, values, constant=constant)

        proxy = cast(_ValueProxy, super().create_proxy(kind, target, args, kwargs, name, None, make))
        meta, value = proxy.node.meta, values[0]
        if isinstance(value, torch.Tensor):
            self._proxies[id(value)].append(proxy)
        meta["number"] = _is_plain(value)
        meta["dimensions"] = value.dim() if isinstance(value, torch.Tensor) else 0
        meta["unreal"] = isinstance(value, torch.Tensor) and not value.is_floating_point()
        if constant and isinstance(value, torch.Tensor):
            meta["constant"] = value.clone()
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            meta["magnitude"] = float(value[value.isfinite()].abs().amax()) if value.isfinite().any() else 0.0
            meta["finite"] = bool(value.isfinite().all())
        return proxy

    def _compute(
        self, kind: str, target: fx.node.Target, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> _Values:
        if kind == "placeholder":
            first, second = self._batches
            return (args[0], args[0]) if args else (first.clone(), second.clone())
        # Inside of a leaf nothing is recorded.
        with _symbolic_trace._maybe_revert_all_patches():
            if kind == "get_attr":
                value = _attribute(self.root, str(target))
                return value, value
            return self._call(kind, target, args, kwargs, 0), self._call(kind, target, args, kwargs, 1)

    def _call(
        self,
        kind: str,
        target: fx.node.Target,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        batch: int,
    ) -> object:
        def value(item: object) -> object:
            return item.values[batch] if isinstance(item, _ValueProxy) else item

        given = cast(tuple[object, ...], _map(args, value))
        named = cast(dict[str, object], _map(kwargs, value))
        if kind == "call_function":
            return cast(Callable[..., object], target)(*given, **named)
        if kind == "call_method":
            return getattr(given[0], str(target))(*given[1:], **named)
        return self.root.get_submodule(str(target))(*given, **named)


def _proxies(args: tuple[object, ...], kwargs: dict[str, object]) -> list[_ValueProxy]:
    found: list[_ValueProxy] = []

    def note(item: object) -> object:
        if isinstance(item, _ValueProxy):
            found.append(item)
        return item

    _map((args, kwargs), note)
    return found


def _map(items: object, function: Callable[[object], object]) -> object:
    replace = cast(Callable[[fx.node.Argument], fx.node.Argument], function)
    return map_aggregate(cast(fx.node.Argument, items), replace)


def _version(proxy: _ValueProxy) -> int:
    value = proxy.values[0]
    # Nobody counts the changes of what torch.inference_mode() computes.
    return value._version if isinstance(value, torch.Tensor) and not value.is_inference() else 0


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _attribute(root: nn.Module, name: str) -> object:
    value: object = root
    for part in name.split("."):
        value = getattr(value, part)
    return value
