from __future__ import annotations

import pytest
import torch

from quant_explorer.core.quantspec import Precision
from quant_explorer.machine.peaks.kernels import KERNELS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PAIRS = [(precision, kernel) for precision in KERNELS for kernel in KERNELS[precision]]


@pytest.mark.parametrize(("precision", "kernel"), PAIRS)
def test_a_kernel_multiplies_two_square_matrices_in_its_precision(precision: Precision, kernel: str) -> None:
    try:
        product = KERNELS[precision][kernel](64)()
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"not in this build of PyTorch: {error}")
    assert isinstance(product, torch.Tensor)
    assert product.squeeze().shape == (64, 64)
    assert product.dtype == DTYPES.get(precision, product.dtype)
    assert precision != "int8" or product.dtype in (torch.int32, torch.uint8, torch.quint8)
    assert bool((product.int_repr() if product.is_quantized else product).any())
