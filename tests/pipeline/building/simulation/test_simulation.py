"""The simulation against the definitions, written out in float64 for one layer at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import BuildError, UnsupportedError
from quant_explorer.core.quantspec import ActivationRange, Granularity, Grid, Precision, QuantSpec, Scales
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.pipeline.building.simulation import Simulation
from quant_explorer.testing.reference import ROUNDING, Affine, LinearLayer, differences, float_logits
from quant_explorer.testing.toys import settle_batch_norms, toy_batches, toy_linear_model, toy_model

STATIC = QuantSpec("int8", "static", "per_channel", "minmax")
DYNAMIC = QuantSpec("int8", "dynamic", "per_channel")
LINEAR_IMAGES = toy_batches((3, 4, 4), count=1, size=64)[0]
IMAGES = toy_batches()


def simulated(
    model: nn.Module, spec: QuantSpec, images: Batch, grid: Grid | None = None
) -> tuple[Batch, ...]:
    """Of `images`, calibrated on them."""
    return Simulation(Candidate(model, spec), (images,)).run(images, grid or Grid())


def double(tensor: torch.Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = tensor.detach().double().numpy()
    return values


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("grid", [Grid(), Grid(127), Grid(64), Grid(activation_levels=127)], ids=str)
def test_a_linear_layer_is_that_of_the_definition(granularity: Granularity, grid: Grid) -> None:
    model = toy_linear_model()
    layer = LinearLayer.of(model, LINEAR_IMAGES, granularity, grid.weight_levels, grid.activation_levels)
    expected = layer.output.round_trip(layer.quantized_sums())
    for logits in simulated(model, replace(STATIC, granularity=granularity), LINEAR_IMAGES, grid):
        # A sum in another order may fall on the other side of the middle between two steps.
        off = np.abs(logits - expected) / layer.output.scale
        assert np.mean(off > ROUNDING) < 0.01
        assert off.max() < 1 + ROUNDING


def test_batch_norms_are_folded_before_weights_get_their_one_scale() -> None:
    """Weights are those of the folded convolution, and there is one rounding, behind the ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        settle_batch_norms(model)
    model.eval()
    convolution, norm = model[0], model[1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert convolution.bias is not None
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = double(norm.weight) / np.sqrt(double(norm.running_var) + norm.eps)
    bias = (double(convolution.bias) - double(norm.running_mean)) * gain + double(norm.bias)
    # The image is as large as the filter, so that the convolution is a product.
    weight = double(convolution.weight).reshape(4, -1) * gain[:, None]
    images = LINEAR_IMAGES.reshape(64, -1).astype(np.float64)
    float_output = np.maximum(images @ weight.T + bias, 0)
    scales: dict[Granularity, NDArray[np.float64]] = {
        "per_tensor": np.abs(weight).max(keepdims=True),
        "per_channel": np.abs(weight).max(1, keepdims=True),
    }
    for granularity, largest in scales.items():
        scale = largest / 127.5
        rounded = np.clip(np.rint(weight / scale), -128, 127) * scale
        sums = Affine.of(images).round_trip(images) @ rounded.T + bias
        expected = Affine.of(float_output).round_trip(np.maximum(sums, 0))
        for logits in simulated(model, replace(STATIC, granularity=granularity), LINEAR_IMAGES):
            assert np.mean(np.abs(logits - expected) > ROUNDING) < 0.01
            assert np.abs(logits - float_output).max() > 100 * ROUNDING


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scales", ["tensor", "channel", "float"])
def test_a_transposed_convolution_has_the_scales_of_the_runtime(scales: Scales, groups: int) -> None:
    """Its outputs are along axis 1 of the weight, of one group; a batch norm is in the weight already."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        layers = nn.ConvTranspose2d(4, 6, 2, groups=groups, bias=False), nn.BatchNorm2d(6)
        model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten()).eval()
    convolution, norm = layers
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.1, 1, 3, 0.5, 2, 9]))
    gain = double(norm.weight) / np.sqrt(1 + norm.eps)
    # An image is one pixel, so that the convolution is a product.
    images = toy_batches((4, 1, 1), count=1, size=64)[0]
    weight = np.zeros((6, 4, 4))
    for output, image in np.ndindex(6, 4):
        group, place = divmod(output, 6 // groups)
        if image // (4 // groups) == group:
            weight[output, :, image] = double(convolution.weight)[image, place].flatten() * gain[output]
    rounded = weight
    if scales != "float":
        scale = np.abs(weight).max((1, 2) if scales == "channel" else None, keepdims=True) / 127.5
        rounded = np.clip(np.rint(weight / scale), -128, 127) * scale
    flat = images.reshape(64, 4).astype(np.float64)
    float_output = np.maximum(flat @ weight.reshape(24, 4).T, 0)
    sums = Affine.of(flat).round_trip(flat) @ rounded.reshape(24, 4).T
    expected = Affine.of(float_output).round_trip(np.maximum(sums, 0))
    # The runtime's scales for the other number of groups are none of this layer's.
    other: Scales = "tensor" if scales == "channel" else "channel"
    grid = Grid(transposed=scales, transposed_groups=other)
    if groups > 1:
        grid = Grid(transposed=other, transposed_groups=scales)
    for logits in simulated(model, STATIC, images, grid):
        assert np.mean(np.abs(logits - expected) > ROUNDING * expected.max()) < 0.01


def test_grids_that_differ_in_layers_the_model_has_not_are_equal() -> None:
    grid = Grid(127, transposed="float", transposed_groups="tensor")
    assert Simulation(Candidate(toy_model(), STATIC), IMAGES).reduce(grid) == Grid(127)
    model = nn.Sequential(nn.ConvTranspose2d(3, 2, 2), nn.Flatten())
    assert Simulation(Candidate(model, STATIC), IMAGES).reduce(grid) == grid


def test_parts_of_a_value_have_one_range() -> None:
    """The first part that is read has small values, which are no range for the second."""

    class Parts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = torch.cat([x, 100 * x], 1).chunk(2, 1)
            return torch.cat([first.sigmoid(), second.tanh() + second], 1).flatten(1)

    model = Parts().eval()
    expected = float_logits(model, LINEAR_IMAGES)
    for logits in simulated(model, STATIC, LINEAR_IMAGES):
        assert logits.max() == pytest.approx(expected.max(), rel=0.02)


def test_sums_that_are_clamped_are_rounded_behind_the_clamp_alone() -> None:
    """On the grid of the sums, a tenth of their range would have 26 steps."""
    images = toy_batches((3, 4, 4), count=1, size=1024)[0]
    model = toy_linear_model()
    sums = float_logits(model, images)
    bound = float(sums.max() - sums.min()) / 20
    for logits in simulated(nn.Sequential(*model, nn.Hardtanh(-bound, bound)), STATIC, images):
        assert len(np.unique(logits)) > 100


def test_pools_have_the_grid_of_their_input_only_where_the_runtime_shares_it() -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    shared = simulated(model, STATIC, LINEAR_IMAGES)
    assert len(shared) == 2
    (own,) = simulated(model, STATIC, LINEAR_IMAGES, Grid(shares_pools=False))
    np.testing.assert_array_equal(own, shared[0])
    step = Affine.of(LINEAR_IMAGES.astype(np.float64)).scale
    assert np.abs(shared[1] / step - np.rint(shared[1] / step)).max() < 0.01


def test_a_dynamic_linear_layer_has_the_range_of_the_batch_and_float_outputs() -> None:
    model = toy_linear_model()
    calibration, images = LINEAR_IMAGES, 3 * LINEAR_IMAGES[:5]
    expected = LinearLayer.of(model, images, "per_channel", 127.5, 127).quantized_sums()
    (logits,) = Simulation(Candidate(model, DYNAMIC), (calibration,)).run(images, Grid(activation_levels=127))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=ROUNDING)


def test_only_linear_layers_are_dynamic() -> None:
    model = toy_model()
    (logits,) = simulated(model, DYNAMIC, IMAGES[0])
    features = torch.from_numpy(float_logits(model[:9], IMAGES[0]))
    expected = simulated(nn.Sequential(nn.Flatten(), model[9]), DYNAMIC, features.numpy())[0]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=ROUNDING)
    assert np.abs(logits - float_logits(model, IMAGES[0])).max() > 10 * ROUNDING


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_rounds_what_is_multiplied_and_what_comes_out(
    precision: Precision, dtype: torch.dtype
) -> None:
    model = toy_linear_model()
    weight, bias = model.parameters()
    product = torch.from_numpy(LINEAR_IMAGES.reshape(64, -1)).to(dtype).double() @ weight.to(dtype).double().T
    expected = (product + bias).float().to(dtype).float()
    (logits,) = simulated(model, QuantSpec(precision), LINEAR_IMAGES)
    assert np.mean(logits != expected.detach().numpy()) < 0.01


def test_layers_that_stay_float_are_not_rounded() -> None:
    model = toy_model()
    (logits,) = simulated(model, replace(DYNAMIC, float_layers=("9",)), IMAGES[0])
    np.testing.assert_array_equal(logits, float_logits(model, IMAGES[0]))
    linear = toy_linear_model()
    for logits in simulated(linear, replace(STATIC, float_layers=("1",)), LINEAR_IMAGES):
        exact = float_logits(linear, LINEAR_IMAGES)
        half_a_step = Affine.of(exact.astype(np.float64)).scale / 2
        assert np.abs(logits - exact).max() <= half_a_step * (1 + ROUNDING)


def test_ranges_are_those_of_the_calibration_images() -> None:
    model = toy_linear_model()
    expected = LinearLayer.of(model, LINEAR_IMAGES, "per_channel", 127.5, 255)
    simulation = Simulation(Candidate(model, STATIC), (LINEAR_IMAGES[:40], LINEAR_IMAGES[40:]))
    far = simulation.run(10 * LINEAR_IMAGES, Grid())[0]
    largest, lowest = expected.output.round_trip(np.array([1e3, -1e3]))
    assert far.max() == pytest.approx(largest, rel=ROUNDING)
    assert far.min() == pytest.approx(lowest, rel=ROUNDING)


def test_learned_ranges_are_one_way_more() -> None:
    """Of the graph that training had: `input_1` and `_1` are how torch.fx names the images and layer 1."""
    learned = (ActivationRange("input_1", -1.0, 1.0), ActivationRange("_1", -0.25, 0.25))
    model = toy_linear_model()
    *calibrated, first, second = simulated(model, replace(STATIC, activation_ranges=learned), LINEAR_IMAGES)
    for logits, other in zip(calibrated, simulated(model, STATIC, LINEAR_IMAGES), strict=True):
        np.testing.assert_array_equal(logits, other)
    for logits in (first, second):
        assert logits.max() == pytest.approx(0.25, abs=0.5 / 255)
        assert logits.min() == pytest.approx(-0.25, abs=0.5 / 255)


def test_ranges_are_learned_where_forward_computes_with_sizes() -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.sum((2, 3)) / float(x.shape[2] * x.shape[3])).relu()

    learned = (ActivationRange("relu", 0.0, 0.01),)
    *_, last = simulated(Mean(), replace(STATIC, activation_ranges=learned), LINEAR_IMAGES)
    assert last.max() == pytest.approx(0.01)


def test_the_histogram_observer_adds_ranges_of_least_squared_error() -> None:
    """Both are ways that runtimes go; those of minimum and maximum are the widest."""
    model, images = toy_linear_model(), LINEAR_IMAGES**3
    coarse = Grid(activation_levels=15)
    found = simulated(model, replace(STATIC, observer="histogram"), images, coarse)
    narrow = simulated(model, STATIC, images, coarse)
    assert [any(np.array_equal(logits, other) for other in narrow) for logits in found] == [
        True,
        True,
        False,
        False,
    ]
    assert np.abs(found[2]).max() < np.abs(found[0]).max()


class Block(nn.Module):
    """Everything that a forward pass may do to tensors: in place or not, in parts, with attention."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 8, 4, 4), nn.ReLU(inplace=in_place)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)
        self.in_place = in_place

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.relu(self.stem(images)).flatten(2).transpose(1, 2)
        first, second = tokens.chunk(2, 1)
        tokens = torch.cat([second, first], 1)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        if self.in_place:
            mixed += tokens
        else:
            mixed = mixed + tokens
        mixed = nn.functional.scaled_dot_product_attention(mixed, mixed, mixed)
        logits: torch.Tensor = self.head(self.norm(mixed).mean(1))
        return logits


def test_it_makes_no_difference_whether_operators_write_in_place() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model = Block(in_place=True).eval()
    other = Block(in_place=False).eval()
    other.load_state_dict(model.state_dict())
    for spec in (STATIC, DYNAMIC, QuantSpec("bf16")):
        for in_place, plain in zip(
            simulated(model, spec, IMAGES[0]), simulated(other, spec, IMAGES[0]), strict=True
        ):
            np.testing.assert_array_equal(in_place, plain)
            quality = sqnr_db(in_place, float_logits(model, IMAGES[0]))
            assert quality is not None
            assert 15 < quality < 70


def test_products_of_attention_are_rounded_though_pytorch_fuses_them() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model = Block(in_place=False).eval()
    everything = simulated(model, STATIC, IMAGES[0])[0]
    layers = replace(STATIC, float_layers=("attention",))
    assert np.abs(everything - simulated(model, layers, IMAGES[0])[0]).max() > 100 * ROUNDING
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("spec", [STATIC, DYNAMIC, QuantSpec("bf16")], ids=str)
def test_model_images_and_autograd_are_left_as_they_were(spec: QuantSpec) -> None:
    model, images = toy_model(), IMAGES[0].copy()
    simulated(model, spec, images)
    assert differences(toy_model(), model) == []
    np.testing.assert_array_equal(images, IMAGES[0])
    with torch.inference_mode():
        inside = simulated(model, spec, images)
    for first, second in zip(inside, simulated(model, spec, images), strict=True):
        np.testing.assert_array_equal(first, second)


class Asking(nn.Module):
    """Attention that is asked by a parameter, and a part of a tensor that is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(2, 1, 16))
        self.attention = nn.MultiheadAttention(16, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(1)[:, :48].reshape(-1, 3, 16).transpose(0, 1) * 1.0
        tokens[:, :, 0] += 1
        tokens[1] = 0.5
        found: torch.Tensor = self.attention(self.queries.expand(-1, len(images), -1), tokens, tokens)[0]
        return found.transpose(0, 1).flatten(1)


def test_views_of_parameters_and_writes_to_parts_are_followed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        model = Asking().eval()
    quality = sqnr_db(simulated(model, STATIC, IMAGES[0])[0], float_logits(model, IMAGES[0]))
    assert quality is not None
    assert 15 < quality < 70
    assert all(parameter.requires_grad for parameter in model.parameters())


class Chooser(nn.Module):
    """Takes another way for few images."""

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = layer(), layer()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = images.sigmoid() if len(images) < 8 else images
        logits: torch.Tensor = self.second(self.first(inner.flatten(1)).tanh())
        return logits


def test_a_forward_pass_that_depends_on_the_images_cannot_be_simulated() -> None:
    model = Chooser(lambda: nn.Linear(48, 48)).eval()
    simulation = Simulation(Candidate(copy.deepcopy(model), STATIC), (LINEAR_IMAGES,))
    with pytest.raises(BuildError, match=r"forward\(\) calls other operators for these images"):
        simulation.run(LINEAR_IMAGES[:4], Grid())


class Masked(nn.Module):
    """Attention of rows to those before them, with a mask from a function of the scores."""

    def __init__(self, mask: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.mask = mask
        self.head = nn.Linear(48, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images.flatten(2)
        weights = self.mask(rows @ rows.transpose(1, 2)).softmax(-1)
        logits: torch.Tensor = self.head((weights @ rows).flatten(1))
        return logits


LATER = torch.ones(3, 3, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    "mask",
    [
        lambda scores: scores + LATER * -1e9,
        lambda scores: scores.masked_fill(LATER, -torch.inf),
        lambda scores: torch.where(LATER, -1e5, scores).view(-1, 3, 3) + 0.5,
    ],
)
def test_masked_scores_are_on_no_grid(mask: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = Masked(mask).eval()
    for logits in simulated(model, STATIC, LINEAR_IMAGES):
        found = sqnr_db(logits, float_logits(model, LINEAR_IMAGES))
        assert found is not None
        assert found > 20


class Inverse(nn.Module):
    """Of a value of which rounding leaves nothing, beside a far larger one."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        small = 1e-6 * (1 + images.flatten(1)[:, :4].abs())
        return 1 / torch.cat([small, torch.ones_like(small)], 1)[:, :4]


class InverseRoot(nn.Module):
    """Of values of which some are near 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.rsqrt(images.flatten(1).abs())


def test_denominators_are_on_no_grid() -> None:
    for logits in simulated(Inverse().eval(), STATIC, LINEAR_IMAGES):
        assert np.isfinite(logits).all()


def test_what_gives_no_numbers_is_refused_with_its_operator() -> None:
    with pytest.raises(UnsupportedError, match=r"operator rsqrt.* the first that gives none"):
        simulated(InverseRoot().eval(), STATIC, LINEAR_IMAGES)
