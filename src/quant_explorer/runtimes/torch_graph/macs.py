"""Multiply-accumulates by precision, counted from the operators that PyTorch really dispatches.

Float operators are counted by PyTorch's own formulas (`torch.utils.flop_counter`) and those of `FORMULAS`;
quantized ones from the weights that were packed for the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from quant_explorer.core.contracts import Batch
from quant_explorer.core.measurement import Executed
from quant_explorer.tracing.attention import attention_as_products
from quant_explorer.tracing.flops import FORMULAS

_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_FLOPS = flop_registry | {packet: shape_wrapper(formula) for packet, formula in FORMULAS.items()}

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def count_macs(module: nn.Module, batch: Batch) -> Executed:
    """Run `module` on `batch` (n, channels, height, width) once; counts are per image."""
    with torch.no_grad(), attention_as_products(), _follow_layers(module) as layers:
        counter = _MacCounter(layers)
        with counter:
            module(torch.from_numpy(batch))
    images = len(batch)
    return Executed(
        macs={precision: total // images for precision, total in sorted(counter.macs.items())},
        kernels=dict(sorted(counter.kernels.items())),
        in_float=tuple(name for name, _ in counter.in_float.most_common()) if counter.macs["int8"] else (),
    )


@contextmanager
def _follow_layers(module: nn.Module) -> Iterator[list[str]]:
    """Give the qualified names of the modules that are being called, the innermost last.

    None for TorchScript, whose graph has no modules any more.
    """
    names: list[str] = []
    layers = [] if isinstance(module, torch.jit.ScriptModule) else list(module.named_modules())
    hooks = []
    for name, layer in layers:

        def enter(*_: object, name: str = name) -> None:
            names.append(name)

        def leave(*_: object) -> None:
            names.pop()

        hooks += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
    try:
        yield names
    finally:
        for hook in hooks:
            hook.remove()


class _MacCounter(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.in_float: Counter[str] = Counter()
        self._layers = layers
        self._in_branch = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here; only to be kept from it, PyTorch would import its compiler (a second).
        return False

    def __torch_dispatch__(
        self,
        func: torch._ops.OperatorBase,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if not isinstance(func, torch._ops.OpOverload):
            return self._run_branch(func, args, kwargs or {})
        # There PyTorch does not take operators apart by itself.
        if self._in_branch and func.has_kernel_for_dispatch_key(_COMPOSITE):
            with self:
                return func.decompose(*args, **(kwargs or {}))
        output = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in _FLOPS:
            flops = _FLOPS[packet](*args, **(kwargs or {}), out_val=output)
            self._add(func, _precision(args), flops // 2)
        elif func.namespace == "quantized" and packet.__name__.startswith(("conv", "linear")):
            self._add_quantized(func, args, output)
        elif func.namespace == "quantized" and packet.__name__ == "matmul":
            # It takes and gives INT8 and multiplies in FP32 between.
            assert isinstance(output, torch.Tensor)
            assert isinstance(args[0], torch.Tensor)
            self._add(func, "fp32", output.numel() * args[0].shape[-1])
        return output

    def _run_branch(
        self, func: torch._ops.OperatorBase, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        """Count what torch.cond computes for this batch; of other operators that hold a graph, nothing."""
        if func is not torch.ops.higher_order.cond:
            return func(*args, **kwargs)
        holds, branches, operands = args[0], args[1:3], args[3]
        chosen = cast(Callable[..., object], branches[0] if holds else branches[1])
        self._in_branch = True
        try:
            with self:
                return chosen(*cast(Sequence[object], operands))
        finally:
            self._in_branch = False

    def _add_quantized(self, func: torch._ops.OpOverload, args: tuple[object, ...], output: object) -> None:
        name = func.overloadpacket.__name__
        if name.endswith(("prepack", "unpack")):
            return
        unpack: Callable[[object], tuple[torch.Tensor, object]] = torch.ops.quantized.conv2d_unpack
        if name.startswith("linear"):
            unpack = torch.ops.quantized.linear_unpack
        elif "3d" in name:
            unpack = torch.ops.quantized.conv3d_unpack
        weight, _ = unpack(args[1])
        # Each weight of a filter meets every output, or every input of a transposed convolution.
        met = args[0] if name.startswith("conv_transpose") else output
        assert isinstance(met, torch.Tensor)
        self._add(func, "int8", met.numel() * weight[0].numel())

    def _add(self, func: torch._ops.OpOverload, precision: str, macs: int) -> None:
        self.macs[precision] += int(macs)
        self.kernels[str(func)] += 1
        if precision != "int8":
            operator = func.overloadpacket.__name__.lstrip("_")
            layer = self._layers[-1] if self._layers else ""
            self.in_float[f"{operator} of layer {layer!r}" if layer else operator] += int(macs)


def _precision(args: tuple[object, ...]) -> str:
    dtypes = [arg.dtype for arg in args if isinstance(arg, torch.Tensor)]
    return _PRECISIONS.get(dtypes[0], str(dtypes[0])) if dtypes else "unknown"
