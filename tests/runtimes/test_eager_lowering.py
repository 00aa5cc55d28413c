"""The quantized engine is PyTorch's own setting, which others use too."""

import pytest
import torch

from quant_explorer.runtimes.eager_lowering import quantized_engine


def test_engine_is_restored_after_an_error() -> None:
    before = torch.backends.quantized.engine
    seen: list[str] = []

    def fail() -> None:
        with quantized_engine("qnnpack"):
            seen.append(torch.backends.quantized.engine)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == ["qnnpack"]
    assert torch.backends.quantized.engine == before
