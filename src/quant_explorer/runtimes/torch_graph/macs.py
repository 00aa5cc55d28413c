"""Multiply-accumulates by precision, counted from the operators that PyTorch really dispatches.

Float operators are counted by PyTorch's own formulas (`torch.utils.flop_counter`); quantized ones,
which it does not know, from the weights that were packed for the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from quant_explorer.core.contracts import Batch
from quant_explorer.core.measurement import Executed
from quant_explorer.tracing.attention import attention_as_products

_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def count_macs(module: nn.Module, batch: Batch) -> Executed:
    """Run `module` on `batch` (n, channels, height, width) once; counts are per image."""
    counter = _MacCounter()
    with torch.no_grad(), attention_as_products(), counter:
        module(torch.from_numpy(batch))
    images = len(batch)
    return Executed(
        macs={precision: total // images for precision, total in sorted(counter.macs.items())},
        kernels=dict(sorted(counter.kernels.items())),
    )


class _MacCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here; only to be kept from it, PyTorch would import its compiler (a second).
        return False

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=output)
            self._add(func, _precision(args), flops // 2)
        elif func.namespace == "quantized" and packet.__name__.startswith(("conv", "linear")):
            self._add_quantized(func, args, output)
        elif func.namespace == "quantized" and packet.__name__ == "matmul":
            # It takes and gives INT8 and multiplies in FP32 between.
            assert isinstance(output, torch.Tensor)
            assert isinstance(args[0], torch.Tensor)
            self._add(func, "fp32", output.numel() * args[0].shape[-1])
        return output

    def _add_quantized(self, func: torch._ops.OpOverload, args: tuple[object, ...], output: object) -> None:
        name = func.overloadpacket.__name__
        if name.endswith(("prepack", "unpack")):
            return
        unpack: Callable[[object], tuple[torch.Tensor, object]] = (
            torch.ops.quantized.linear_unpack
            if name.startswith("linear")
            else torch.ops.quantized.conv2d_unpack
        )
        weight, _ = unpack(args[1])
        # Each weight of a filter meets every output, or every input of a transposed convolution.
        met = args[0] if name.startswith("conv_transpose") else output
        assert isinstance(met, torch.Tensor)
        self._add(func, "int8", met.numel() * weight[0].numel())

    def _add(self, func: torch._ops.OpOverload, precision: str, macs: int) -> None:
        self.macs[precision] += int(macs)
        self.kernels[str(func)] += 1


def _precision(args: tuple[object, ...]) -> str:
    dtypes = [arg.dtype for arg in args if isinstance(arg, torch.Tensor)]
    return _PRECISIONS.get(dtypes[0], str(dtypes[0])) if dtypes else "unknown"
