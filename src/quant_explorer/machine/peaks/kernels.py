"""Matrix products as fast as PyTorch has them, by precision: what the peaks are measured with.

The peak of a precision is that of its fastest kernel; which one that is depends on the processor. Float:
`torch.matmul`, and a 1x1 convolution, which comes from another library (on x86 MKL and oneDNN). INT8: int8 x
int8 of `torch._int_mm`, uint8 x int8 of oneDNN with packed weights (`onednn.qlinear_pointwise`, what
torch.compile uses), and that of the quantized engine (`quantized.linear`, what eager mode uses). The
last two also requantize their result, which is little beside the products of large matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from quant_explorer.core.quantspec import Precision

if TYPE_CHECKING:
    import torch

Call = Callable[[], object]
Prepare = Callable[[int], Call]


def _matmul(dtype: str) -> Prepare:
    def prepare(size: int) -> Call:
        import torch

        left, right = (torch.rand(size, size).to(getattr(torch, dtype)) for _ in range(2))
        return lambda: torch.matmul(left, right)

    return prepare


def _convolution(dtype: str) -> Prepare:
    def prepare(size: int) -> Call:
        import torch

        image = torch.rand(1, size, size, 1).to(getattr(torch, dtype))
        filters = torch.rand(size, size, 1, 1).to(getattr(torch, dtype))
        return lambda: torch.nn.functional.conv2d(image, filters)

    return prepare


def _bytes(size: int, dtype: str) -> torch.Tensor:
    import torch

    return torch.randint(0, 100, (size, size), dtype=getattr(torch, dtype))


def _int_mm(size: int) -> Call:
    import torch

    left, right = _bytes(size, "int8"), _bytes(size, "int8")
    return lambda: torch._int_mm(left, right)


def _qlinear_pointwise(size: int) -> Call:
    import torch

    rows, scales, zero_points = _bytes(size, "uint8"), torch.ones(size), torch.zeros(size, dtype=torch.int)
    packed = torch.ops.onednn.qlinear_prepack(_bytes(size, "int8"), rows.shape)
    quantization = (1.0, 0, packed, scales, zero_points, None, 1e4, 0, torch.uint8)
    return lambda: torch.ops.onednn.qlinear_pointwise(rows, *quantization, "none", [], "")


def _quantized_linear(size: int) -> Call:
    import torch

    weight = torch.quantize_per_tensor(torch.rand(size, size), 0.01, 0, torch.qint8)
    rows = torch.quantize_per_tensor(torch.rand(size, size), 0.01, 0, torch.quint8)
    packed = torch.ops.quantized.linear_prepack(weight, None)
    return lambda: torch.ops.quantized.linear(rows, packed, size * 1e-3, 0)


KERNELS: dict[Precision, dict[str, Prepare]] = {
    "fp32": {"torch.matmul": _matmul("float32"), "conv2d": _convolution("float32")},
    "bf16": {"torch.matmul": _matmul("bfloat16"), "conv2d": _convolution("bfloat16")},
    "fp16": {"torch.matmul": _matmul("float16"), "conv2d": _convolution("float16")},
    "int8": {
        "torch._int_mm": _int_mm,
        "onednn.qlinear_pointwise": _qlinear_pointwise,
        "quantized.linear": _quantized_linear,
    },
}
