"""Figures and formulas of the documents, recomputed."""

from __future__ import annotations

from itertools import count
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch.ao import quantization
from torch.nn.utils.fusion import fuse_conv_bn_eval

from quant_explorer.models import load_model
from quant_explorer.runtimes.torch_graph.macs import count_macs
from quant_explorer.stats.rounds import tail_percentile

EPS = 2.0**-23


@pytest.mark.parametrize(("q", "floor"), [(95, 130), (99, 662)])
def test_percentile_floors_are_the_sample_sizes_of_wilks(q: Literal[95, 99], floor: int) -> None:
    smallest = next(n for n in count(1) if binom.cdf(1, n, 1 - q / 100) <= 0.01)
    assert smallest == floor
    calls = np.linspace(1.0, 2.0, floor + 1)
    assert tail_percentile([calls], q)[0] is not None
    assert tail_percentile([calls[:-1]], q)[0] is None


@pytest.mark.parametrize("values", [[-0.3, 1.7], [0.2, 5.0], [-4.0, -1.0], [0.0, 0.0]])
@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 255), (True, 127)])
def test_activations_have_the_scale_and_zero_point_of_the_formula(
    values: list[float], reduce_range: bool, largest: int
) -> None:
    observer = quantization.MinMaxObserver(
        dtype=torch.quint8, qscheme=torch.per_tensor_affine, reduce_range=reduce_range
    )
    observer(torch.tensor(values))
    low, high = min(*values, 0.0), max(*values, 0.0)
    scale = max((high - low) / largest, EPS)
    found_scale, found_zero_point = observer.calculate_qparams()
    assert float(found_scale) == pytest.approx(scale, rel=1e-6)
    assert int(found_zero_point) == np.clip(-np.rint(low / scale), 0, largest)


def test_weights_have_the_scale_of_the_formula() -> None:
    weight = torch.tensor([[0.5, -2.0], [1.0, 0.25]])
    per_tensor = quantization.default_weight_observer()
    per_channel = quantization.default_per_channel_weight_observer()
    for observer, expected in ((per_tensor, [2.0]), (per_channel, [2.0, 1.0])):
        observer(weight)
        scale, zero_point = observer.calculate_qparams()
        torch.testing.assert_close(scale, torch.tensor(expected) / 127.5)
        assert not zero_point.any()


def test_batch_norms_fold_by_the_formula() -> None:
    torch.manual_seed(0)
    convolution, norm = torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)
    for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        assert tensor is not None
        tensor.data.uniform_(0.5, 2.0)
    folded = fuse_conv_bn_eval(convolution.eval(), norm.eval())
    assert norm.running_var is not None
    assert norm.running_mean is not None
    assert convolution.bias is not None
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(folded.weight, convolution.weight * factor.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(folded.bias, (convolution.bias - norm.running_mean) * factor + norm.bias)


def test_rounding_is_to_even_and_clipped() -> None:
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, -900.0, 900.0])
    quantized = torch.quantize_per_tensor(values, 1.0, 10, torch.quint8).int_repr()
    assert quantized.tolist() == [10, 12, 12, 10, 0, 255]


def test_two_products_of_bytes_overflow_16_bits_with_8_bits_and_not_with_7() -> None:
    sixteen = np.iinfo(np.int16)
    assert 2 * 255 * 127 == 64_770 > sixteen.max
    assert 2 * 127 * 127 == 32_258 <= sixteen.max
    assert -2 * 127 * 128 == -32_512 >= sixteen.min


def test_the_linear_layer_of_small_cnn_is_a_sliver() -> None:
    model = load_model("small_cnn", weights=None, classes=10, image_shape=(3, 32, 32), seed=0).module
    macs = count_macs(model, np.zeros((1, 3, 32, 32), np.float32)).macs
    assert macs == {"fp32": 38_634_752}
    assert round(1_280 / 38_634_752, 5) == 0.00003
