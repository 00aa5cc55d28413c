"""Plain layers compute what the special ones do, and the model stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from quant_explorer.testing.toys import toy_model
from quant_explorer.tracing.plain import make_plain

IMAGES = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 9, 9), dtype=np.float32))

SPECIAL: dict[str, Callable[[], nn.Module]] = {
    "same padding": lambda: nn.Conv2d(3, 4, 3, padding="same"),
    "same padding of an even kernel": lambda: nn.Conv2d(3, 4, (4, 3), padding="same"),
    "same padding by reflection": lambda: nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"),
    "no padding by name": lambda: nn.Conv2d(3, 4, 3, padding="valid"),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
    "older weight norm": lambda: weight_norm(nn.Conv2d(3, 4, 3)),
    "older spectral norm": lambda: spectral_norm(nn.Conv2d(3, 4, 3)),
    "channels last": lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.filterwarnings("ignore")
def test_it_computes_the_same_with_plain_layers(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(SPECIAL[name]()).eval()
    with torch.no_grad():
        expected = model(IMAGES)
        plain = make_plain(model)
        torch.testing.assert_close(plain(IMAGES), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(IMAGES), expected)
    layer = plain.get_submodule("0")
    assert type(layer) is nn.Conv2d
    assert not isinstance(layer.padding, str)
    assert layer.weight.is_contiguous()
    assert dict(plain.named_parameters()).keys() == {"0.weight", "0.bias"}


def test_a_model_of_plain_layers_is_returned_itself() -> None:
    model = toy_model()
    assert make_plain(model) is model
