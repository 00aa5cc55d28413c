"""Each way to lose a part of a model is found; that right files pass, the conformance suite shows."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import BuildError, FidelityError, UnsupportedError
from quant_explorer.core.quantspec import Grid, QuantSpec
from quant_explorer.pipeline.building.expectation import Expectation, stress_images
from quant_explorer.runtimes.eager.runtime import select_engine
from quant_explorer.runtimes.torch_graph import engine as torch_engine
from quant_explorer.runtimes.torch_graph import fx
from quant_explorer.testing.toys import settle_batch_norms, toy_batches, toy_model

STATIC = QuantSpec("int8", "static", "per_channel", "minmax")
IMAGES = toy_batches()
KINDS = ["calibration images", "nearly white ones", "nearly black ones"]


class Network(nn.Module):
    """A stem that is added to twice what two convolutions make of it, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.first, self.second = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.head = nn.Linear(12, 6)
        self.factor = 2.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.relu1(self.norm(self.stem(images)))
        branch = self.second(self.relu2(self.first(stem)))
        logits: torch.Tensor = self.head((stem + self.factor * branch).relu().mean((2, 3)))
        return logits


def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(4)
        model = Network()
        settle_batch_norms(model)
        for parameter in model.parameters():
            parameter.data.mul_(2.0)
    return model.eval()


def check(model: nn.Module, made: nn.Module) -> None:
    """Check what eager makes of `made` as files of `model`."""
    engine = select_engine("")
    with torch_engine.quantized_engine(engine):
        lowered = fx.quantize(Candidate(made, STATIC), IMAGES, engine)

        def run(images: Batch) -> Batch:
            with torch.inference_mode():
                logits: Batch = lowered.module(torch.from_numpy(images)).numpy()
            return logits

        Expectation(Candidate(model, STATIC), IMAGES).check(run, lowered.grid)


def lose_weights(model: Network) -> None:
    model.second.weight.data.zero_()


def lose_one_filter(model: Network) -> None:
    model.first.weight.data[3] = 0


def lose_a_bias(model: Network) -> None:
    assert model.second.bias is not None
    model.second.bias.data.zero_()


def lose_the_bias_of_a_folded_norm(model: Network) -> None:
    model.norm.bias.data.zero_()


def lose_a_relu(model: Network) -> None:
    model.relu2 = nn.Identity()  # type: ignore[assignment]


def lose_a_factor(model: Network) -> None:
    model.factor = 1.0


def lose_half_of_a_factor(model: Network) -> None:
    model.factor = 1.5


def bound_a_scale_from_below(model: Network) -> None:
    model.second.weight.data = (model.second.weight.data * 2**4).round() / 2**4


def swap_two_outputs(model: Network) -> None:
    model.head.weight.data = model.head.weight.data[[1, 0, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    "lose",
    [
        lose_weights,
        lose_one_filter,
        lose_a_bias,
        lose_the_bias_of_a_folded_norm,
        lose_a_relu,
        lose_a_factor,
        lose_half_of_a_factor,
        bound_a_scale_from_below,
        swap_two_outputs,
    ],
)
def test_what_loses_a_part_of_the_model_is_found(lose: Callable[[Network], None]) -> None:
    model = network()
    check(model, model)
    wrong = copy.deepcopy(model)
    lose(wrong)
    with pytest.raises(
        FidelityError, match=r"on .* dB .* simulation of the same quantization has \d\d\.\d dB"
    ):
        check(model, wrong)


def overflowing(
    weight: NDArray[np.float32], bias: NDArray[np.float32], low: float, high: float
) -> Callable[[Batch], Batch]:
    """A linear layer whose kernel adds pairs of 8-bit products in 16 bits, as AVX2 does."""
    scale, weight_scale = (high - low) / 255, np.abs(weight).max(1, keepdims=True) / 127
    steps = np.rint(weight / weight_scale).astype(np.int64)
    zero_point = round(-low / scale)

    def run(images: Batch) -> Batch:
        features = np.clip(np.rint(images.reshape(len(images), -1) / scale) + zero_point, 0, 255).astype(
            np.int64
        )
        products = features[:, None] * steps[None]
        pairs = np.clip(products[..., ::2] + products[..., 1::2], -(2**15), 2**15 - 1).sum(-1)
        logits: Batch = ((pairs - zero_point * steps.sum(1)) * scale * weight_scale.T + bias).astype(
            np.float32
        )
        return logits

    return run


def test_kernels_that_overflow_are_found_on_nearly_white_images() -> None:
    """The first of the calibration images, which are dark, do not show it."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], (4, 24)).repeat(32, axis=1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).eval()
    weight, bias = model.parameters()
    weight.data = torch.from_numpy(signs / 768).float()
    dark, bright = (rng.uniform(low, low + 0.5, (32, 3, 16, 16)).astype(np.float32) for low in (-2.0, 2.0))
    run = overflowing(weight.detach().numpy(), bias.detach().numpy(), -2.0, 2.5)
    with pytest.raises(FidelityError, match=r"^on nearly white ones the outputs have"):
        Expectation(Candidate(model, STATIC), (dark, bright)).check(run, Grid(weight_levels=127))


def test_stress_images_are_calibration_images_with_nearly_one_value_for_all_pixels() -> None:
    first, second = toy_batches(count=2, size=24)
    second[3, 1] = 50.0
    images = stress_images((first, second))
    assert list(images) == KINDS
    np.testing.assert_array_equal(images[KINDS[0]], first[:16])
    lightest = np.maximum(first.max((0, 2, 3)), second.max((0, 2, 3)))
    for kind, pixels in ((KINDS[1], lightest), (KINDS[2], np.minimum(first, second).min((0, 2, 3)))):
        expected = 0.95 * pixels[:, None, None] + 0.05 * first[:16]
        np.testing.assert_allclose(images[kind], expected, rtol=1e-5, atol=1e-6)
        assert images[kind].dtype == np.float32


def test_fp32_must_be_right_on_all_images() -> None:
    model = toy_model()

    def run(images: Batch) -> Batch:
        with torch.inference_mode():
            logits: Batch = model(torch.from_numpy(images).clamp(max=2.0)).numpy()
        return logits

    calibration = tuple(np.clip(batch, None, 2.0) for batch in IMAGES)
    assert Expectation(Candidate(model, QuantSpec()), calibration).check(run, Grid()) == ()
    beyond = (*calibration, 3 * np.abs(IMAGES[0]))
    with pytest.raises(BuildError, match="the lowered FP32 model is off by"):
        Expectation(Candidate(model, QuantSpec()), beyond).check(run, Grid())


@pytest.mark.parametrize("spec", [QuantSpec(), QuantSpec("fp16"), STATIC], ids=str)
def test_files_that_compute_something_else_the_second_time_are_refused(spec: QuantSpec) -> None:
    model = network()
    calls = 0

    def run(images: Batch) -> Batch:
        nonlocal calls
        calls += 1
        with torch.inference_mode():
            logits: Batch = model(torch.from_numpy(images)).numpy()
        return logits * (1.01 if calls == 2 else 1.0)

    with pytest.raises(UnsupportedError, match=r"the second time \(off by 0\.01 of the largest logit\)"):
        Expectation(Candidate(model, spec), IMAGES).check(run, Grid())
