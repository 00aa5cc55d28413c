"""FX quantization against the definitions, written out in NumPy; and what it must refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import ActivationRange, Granularity, QuantSpec
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.runtimes.eager.runtime import Eager, select_engine
from quant_explorer.runtimes.torch_graph import engine as torch_engine
from quant_explorer.runtimes.torch_graph import fx
from quant_explorer.testing.reference import Affine, float_logits
from quant_explorer.testing.toys import toy_batches, toy_linear_model, toy_model

ENGINE = select_engine("")
BITS = torch_engine.activation_bits(ENGINE)[0]
# Layer, and the batch norm that is folded into it.
CONVOLUTIONS = (("0", "1"), ("4", "5"))


def folded(model: nn.Module, convolution: str, norm: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight and bias with the batch norm in them: f = gamma / sqrt(var + eps), w f and beta - mean f."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    factor = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
    weight = state[f"{convolution}.weight"] * factor.reshape(-1, 1, 1, 1)
    return weight, state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor


def lowered_weights(model: nn.Module, spec: QuantSpec, folder: Path) -> dict[str, torch.Tensor]:
    Eager().lower(Candidate(model, spec), toy_batches(), folder)
    weights: dict[str, torch.Tensor] = torch.load(folder / "weights.pt", weights_only=True)
    return weights


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_weights_are_within_half_a_step_of_the_folded_ones(granularity: Granularity, tmp_path: Path) -> None:
    """And the scale is max|w| / 127.5, of the tensor or of each output channel."""
    model = toy_model()
    weights = lowered_weights(model, QuantSpec("int8", "static", granularity), tmp_path)
    for convolution, norm in CONVOLUTIONS:
        weight, bias = folded(model, convolution, norm)
        largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
        if granularity == "per_tensor":
            largest = np.full_like(largest, largest.max())
        expected_scale = largest / 127.5
        quantized = weights[f"{convolution}.weight"]
        scale = (
            quantized.q_per_channel_scales().numpy().reshape(-1, 1, 1, 1)
            if granularity == "per_channel"
            else np.float64(quantized.q_scale())
        )
        np.testing.assert_allclose(np.broadcast_to(scale, expected_scale.shape), expected_scale, rtol=1e-5)
        steps = quantized.int_repr().numpy()
        assert steps.dtype == np.int8
        assert np.all(np.abs(steps * scale - weight) <= expected_scale * 0.5001)
        assert np.abs(steps).max() >= 127
        np.testing.assert_allclose(
            weights[f"{convolution}.bias"].detach().numpy(), bias, rtol=1e-4, atol=1e-6
        )


def test_per_channel_is_finer_than_per_tensor(tmp_path: Path) -> None:
    model = toy_model()
    errors = []
    for granularity in ("per_tensor", "per_channel"):
        folder = tmp_path / granularity
        folder.mkdir()
        spec = QuantSpec("int8", "static", "per_channel" if granularity == "per_channel" else "per_tensor")
        quantized = lowered_weights(model, spec, folder)["0.weight"].dequantize().numpy()
        errors.append(np.square(quantized - folded(model, "0", "1")[0]).mean())
    assert errors[1] < errors[0]


def test_input_is_within_half_a_step(tmp_path: Path) -> None:
    """Scale (max - min) / (2^bits - 1) over the calibration images; the kernel does what NumPy does."""
    weights = lowered_weights(toy_model(), QuantSpec("int8", "static", observer="minmax"), tmp_path)
    (scale,) = (float(value) for name, value in weights.items() if name.endswith("_input_scale_0"))
    (zero_point,) = (int(value) for name, value in weights.items() if name.endswith("_input_zero_point_0"))
    images: NDArray[np.float64] = np.concatenate(toy_batches()).astype(np.float64)
    expected = Affine.of(images, 2**BITS - 1)
    assert scale == pytest.approx(expected.scale, rel=1e-6)
    assert zero_point == expected.zero_point
    by_kernel = torch.quantize_per_tensor(
        torch.from_numpy(images).float(), scale, zero_point, torch.quint8
    ).dequantize()
    assert np.abs(by_kernel.numpy() - images).max() <= expected.scale * 0.5001
    assert np.abs(by_kernel.numpy() - expected.round_trip(images)).max() <= expected.scale * 1.0001


def test_learned_ranges_are_used_and_calibration_is_not(tmp_path: Path) -> None:
    model = toy_linear_model()
    ranges = (
        ActivationRange("input_1", -1.0, 3.0),
        ActivationRange("_0", -1.0, 3.0),
        ActivationRange("_1", -2.0, 2.0),
    )
    spec = QuantSpec("int8", "static", activation_ranges=ranges)
    Eager().lower(Candidate(model, spec), toy_batches((3, 4, 4)), tmp_path)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert float(weights["1.scale"]) == pytest.approx(4 / (2**BITS - 1))
    missing = QuantSpec("int8", "static", activation_ranges=ranges[:2])
    with pytest.raises(UnsupportedError, match="no activation range was learned for '_1'"):
        Eager().lower(Candidate(model, missing), toy_batches((3, 4, 4)), tmp_path)


def test_seven_bits_are_used_where_they_are_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch_engine, "activation_bits", lambda engine: (7, "because"))
    spec = QuantSpec("int8", "static", observer="minmax")
    lowering = Eager().lower(Candidate(toy_linear_model(), spec), toy_batches((3, 4, 4)), tmp_path)
    assert "because" in lowering.notes
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    batches = np.concatenate(toy_batches((3, 4, 4))).reshape(-1, 48).astype(np.float64)
    linear = {name: value.double().numpy() for name, value in toy_linear_model().state_dict().items()}
    outputs = batches @ linear["1.weight"].T + linear["1.bias"]
    assert float(weights["1.scale"]) == pytest.approx(Affine.of(outputs, 127).scale, rel=1e-5)


@pytest.mark.parametrize(("bits", "scale"), [(8, 1 / 256), (7, 255 / 256 / 127)])
def test_outputs_of_a_fixed_range_are_reduced_before_a_layer(
    bits: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's sigmoid gives 8 bits on every CPU, and a linear layer would overflow."""
    monkeypatch.setattr(torch_engine, "activation_bits", lambda engine: (bits, None))
    model = nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(48, 4)).eval()
    candidate = Candidate(model, QuantSpec("int8", "static", observer="minmax"))
    images = toy_batches((3, 4, 4))
    seen: list[float] = []
    with torch_engine.quantized_engine(ENGINE):
        graph = fx.quantize(candidate, images, ENGINE).module
        graph.get_submodule("2").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].q_scale()))
        graph(torch.from_numpy(images[0]))
    assert seen == pytest.approx([scale])


@pytest.mark.parametrize("right", [True, False])
def test_transposed_convolutions_stay_in_float_where_they_are_wrong(
    right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "computes_transposed", lambda engine: right)
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch_engine.quantized_engine(ENGINE):
        candidate = Candidate(model, QuantSpec("int8", "static"))
        lowered = fx.quantize(candidate, toy_batches((3, 4, 4)), ENGINE)
    assert (type(lowered.module.get_submodule("0")) is nn.ConvTranspose2d) == (not right)
    assert any("0 stay in float" in note for note in lowered.notes) == (not right)


@pytest.mark.parametrize(
    "engine", [name for name in torch.backends.quantized.supported_engines if name != "none"]
)
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_transposed_convolutions_have_one_scale_in_every_engine(
    engine: str, granularity: Granularity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch has no other, although its own settings for `onednn` ask for one a channel."""
    monkeypatch.setattr(torch_engine, "computes_transposed", lambda engine: True)
    layer = nn.ConvTranspose2d(3, 4, 2, 2)
    model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch_engine.quantized_engine(engine):
        candidate = Candidate(model, QuantSpec("int8", "static", granularity))
        graph = fx.quantize(candidate, toy_batches((3, 4, 4)), engine).module
        weight = graph.state_dict()["0.weight"]
    assert weight.qscheme() == torch.per_tensor_affine
    assert weight.q_scale() == pytest.approx(float(layer.weight.abs().max()) / 127.5)


class Small(nn.Module):
    """A convolution, `middle`, global average, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.middle(self.convolution(x)).mean((2, 3)))
        return logits


class CalledTwice(Small):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.again(F.relu(self.again(x)))
        return out


class CalledTwiceAlike(Small):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.again(F.relu(self.again(x))))


class Read(Small):
    """The weights of a layer are used outside of it, where a quantized layer has none."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = F.conv2d(F.relu(self.again(x)), self.again.weight, padding=1)
        return out @ self.head.weight.mean().expand(16, 16)


class Length(Small):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x * len(x)


class Branch(Small):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0 else -x


class Checked(Small):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, torch.Tensor):
            raise ValueError("not a tensor")
        return x


@pytest.mark.parametrize("spec", [QuantSpec("int8", "dynamic"), QuantSpec("int8", "static")])
class TestRefusals:
    @pytest.mark.parametrize("kind", [Length, Branch, Checked])
    def test_untraceable(self, kind: type[Small], spec: QuantSpec, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedError, match=r"cannot be traced .*move it out of forward\(\)"):
            Eager().lower(Candidate(kind().eval(), spec), toy_batches(), tmp_path)

    @pytest.mark.parametrize("kind", [CalledTwiceAlike, CalledTwice, Read])
    def test_a_layer_whose_weights_are_used_twice_is_right(
        self, kind: type[Small], spec: QuantSpec, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        model = kind().eval()
        Eager().lower(Candidate(model, spec), toy_batches(), tmp_path)
        found = Eager().open(tmp_path).run(toy_batches()[0])
        decibels = sqnr_db(found, float_logits(model, toy_batches()[0]))
        assert decibels is not None
        assert decibels > 25


def test_float_layers_stay_in_float(tmp_path: Path) -> None:
    spec = QuantSpec("int8", "static", float_layers=("9",))
    Eager().lower(Candidate(toy_model(), spec), toy_batches(), tmp_path)
    assert Eager().open(tmp_path).executed(toy_batches()[0]).macs["fp32"] == 64
    dynamic = QuantSpec("int8", "dynamic", float_layers=("9",))
    Eager().lower(Candidate(toy_model(), dynamic), toy_batches(), tmp_path)
    assert "int8" not in Eager().open(tmp_path).executed(toy_batches()[0]).macs
