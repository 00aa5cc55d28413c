"""What was trained is what is shipped: the artifact computes what the fake-quantized model computed."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn
from torch.ao.quantization import FakeQuantize, disable_fake_quant
from torch.nn import functional

from quant_explorer.core.contracts import Batch, Candidate, Workbench
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import Granularity, Observer, QuantSpec
from quant_explorer.runtimes.eager.runtime import Eager, select_engine
from quant_explorer.runtimes.torch_graph.engine import activation_bits
from quant_explorer.techniques import qat, qat_fx
from quant_explorer.techniques.qat import QuantizationAwareTraining
from quant_explorer.testing.reference import Affine, float_logits
from quant_explorer.testing.toys import ToyTraining, settle_batch_norms, toy_batches, toy_model

STATIC = QuantSpec("int8", "static")
full_activations = pytest.mark.skipif(
    activation_bits(select_engine(""))[0] != 8,
    reason="training simulates 8-bit activations; the kernels of this CPU need 7",
)


class Residual(nn.Module):
    """A ReLU used three times, an addition, and a batch norm that follows a pool, not a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.norm3 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm1(self.first(x)))
        x = self.relu(x + self.norm2(self.second(x)))
        x = self.relu(self.norm3(self.pool(x)))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


class PartlyUsed(nn.Module):
    """An auxiliary head that forward() leaves out, and a layer with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = toy_model()
        self.auxiliary = nn.Linear(16, 4)
        self.alias = self.body[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(x)
        return logits


def seeded(make: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = make()
        settle_batch_norms(model)
    return model.eval()


def without_batch_norm() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(4)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 12 * 12, 4)
        ).eval()


def train(model: nn.Module, spec: QuantSpec, batches: tuple[Batch, ...]) -> tuple[Candidate, nn.Module]:
    """Return the result, and the fake-quantized model that was trained on the way."""
    training = ToyTraining(batches)
    technique = QuantizationAwareTraining(learning_rate=0.02)
    result = technique.apply(Candidate(model, spec), Workbench(batches, training))
    return result, training.calls[0].model


def fake_quantized_logits(prepared: nn.Module, batch: Batch) -> Batch:
    """In evaluation mode; the weight observers see the final weights as they go."""
    prepared.eval()
    return float_logits(prepared, batch)


def shipped_logits(candidate: Candidate, batches: tuple[Batch, ...], folder: Path) -> Batch:
    Eager().lower(candidate, batches, folder)
    return Eager().open(folder).run(batches[0])


def sqnr(logits: Batch, reference: Batch) -> float:
    return float(10 * np.log10((reference**2).sum() / ((logits - reference) ** 2).sum()))


def output_step(candidate: Candidate) -> float:
    last = candidate.spec.activation_ranges[-1]
    return (last.high - last.low) / 255


@full_activations
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("observer", ["histogram", "minmax"])
@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (toy_model, 1),
        (without_batch_norm, 1),
        # A tie that is rounded the other way before the addition may come out as two steps behind it.
        (lambda: seeded(Residual), 2),
    ],
)
def test_artifact_computes_what_was_trained(
    make: Callable[[], nn.Module], steps: int, granularity: Granularity, observer: Observer, tmp_path: Path
) -> None:
    model, batches = make(), toy_batches()
    result, prepared = train(model, QuantSpec("int8", "static", granularity, observer), batches)
    trained = fake_quantized_logits(prepared, batches[0])
    step = output_step(result)
    error = np.abs(shipped_logits(result, batches, tmp_path) - trained) / step
    assert error.max() <= steps + 0.01
    assert (error < 0.01).mean() >= 0.8
    assert len(np.unique(trained)) > 8
    untrained = shipped_logits(Candidate(model, result.spec), batches, tmp_path)
    assert np.abs(untrained - trained).max() > 5 * step


@full_activations
@pytest.mark.slow
def test_resnet18_ships_what_was_trained(tmp_path: Path) -> None:
    """Additions, and a ReLU called twice in each block.

    Every scale is the trained one. Single steps add up over 20 layers, so outputs are compared in dB:
    the training moves logits beyond the held ranges, which only the fake-quantized network shows.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = torchvision.models.resnet18(num_classes=4).eval()
    batches = toy_batches((3, 64, 64), count=2, size=4)
    result, prepared = train(model, STATIC, batches)
    trained = fake_quantized_logits(prepared, batches[0])
    assert sqnr(shipped_logits(result, batches, tmp_path), trained) > 25
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    ranges = {item.layer: item for item in result.spec.activation_ranges}
    scales = {
        name.removesuffix(".scale"): float(value) for name, value in weights.items() if ".scale" in name
    }
    assert len(scales) == 21
    for layer, scale in scales.items():
        held = ranges[layer.replace(".", "_")]
        assert scale == pytest.approx((held.high - held.low) / 255, rel=1e-6), layer
    assert set(result.model.state_dict()) == set(model.state_dict())
    before = dict(model.named_parameters())
    same = [name for name, value in result.model.named_parameters() if torch.equal(value, before[name])]
    assert same == []
    assert sqnr(shipped_logits(Candidate(model, result.spec), batches, tmp_path), trained) < 10
    assert sqnr(float_logits(result.model, batches[0]), trained) < 10


def test_every_parameter_is_restored() -> None:
    """To the last bit: those inside fused layers, batch norm statistics, and those trained as they were."""
    model = seeded(Residual)
    result, prepared = train(model, STATIC, toy_batches())
    trained = prepared.state_dict()
    restored = result.model.state_dict()
    assert list(restored) == list(model.state_dict())
    # Batch norms inside a quantized convolution, and the one in a sequence with its ReLU.
    inside = {"norm1": "first.bn", "norm2": "second.bn", "norm3": "norm3.0"}
    for name, value in restored.items():
        layer, _, parameter = name.rpartition(".")
        assert torch.equal(value, trained[f"{inside.get(layer, layer)}.{parameter}"]), name
        changed = not torch.equal(value, model.state_dict()[name])
        # A bias before a batch norm has no gradient beside rounding.
        assert changed or name == "first.bias", name
    assert [type(module) for module in result.model.modules()] == [type(module) for module in model.modules()]


def test_layers_that_stay_in_float_are_restored_too() -> None:
    model = toy_model()
    result, _ = train(model, dataclasses.replace(STATIC, float_layers=("0", "1", "2")), toy_batches())
    before = model.state_dict()
    unchanged = [
        name for name, value in result.model.state_dict().items() if torch.equal(value, before[name])
    ]
    assert unchanged == []


def test_what_forward_does_not_use_stays_as_it_was() -> None:
    model = seeded(PartlyUsed)
    result, _ = train(model, STATIC, toy_batches())
    assert isinstance(result.model, PartlyUsed)
    assert isinstance(model, PartlyUsed)
    before, after = model.state_dict(), result.model.state_dict()
    assert torch.equal(before["auxiliary.weight"], after["auxiliary.weight"])
    assert not torch.equal(before["body.0.weight"], after["body.0.weight"])
    assert result.model.alias is result.model.body[0]


def test_ranges_are_those_of_the_calibration_images_before_training() -> None:
    """Of the input by its exact minimum and maximum, and of every layer as its quantizer holds it."""
    model, batches = toy_model(), toy_batches()
    spec = QuantSpec("int8", "static", observer="minmax")
    result, prepared = train(model, spec, batches)
    ranges = result.spec.activation_ranges
    images: NDArray[np.float64] = np.concatenate(batches).astype(np.float64)
    expected = Affine.of(images)
    assert ranges[0].high - ranges[0].low == pytest.approx(255 * expected.scale, rel=1e-6)
    assert ranges[0].low == pytest.approx(-expected.zero_point * expected.scale, rel=1e-6)
    held = [
        (module.scale.item(), module.zero_point.item())
        for name, module in prepared.named_modules()
        if isinstance(module, FakeQuantize) and "activation" in name
    ]
    assert len(held) >= 5
    derived = {
        (round((item.high - item.low) / 255, 9), round(-255 * item.low / (item.high - item.low)))
        for item in ranges
    }
    assert derived == {(round(scale, 9), zero_point) for scale, zero_point in held}
    assert all(item.low <= 0 <= item.high for item in ranges)
    assert len({item.layer for item in ranges}) == len(ranges)


@full_activations
def test_layers_that_pytorch_configures_by_type_are_trained_like_the_rest(tmp_path: Path) -> None:
    """Transposed convolutions have a configuration of their own in PyTorch's default mapping."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, 2),
        nn.AvgPool2d(28),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    batches = toy_batches()
    result, prepared = train(model, STATIC, batches)
    trained = fake_quantized_logits(prepared, batches[0])
    assert np.abs(shipped_logits(result, batches, tmp_path) - trained).max() <= output_step(result) * 1.001


def test_needs_a_precision_to_train_for() -> None:
    reason = QuantizationAwareTraining().unsupported(Candidate(toy_model(), QuantSpec()))
    assert reason == "quantization-aware training needs a static INT8 step before it"
    dynamic = Candidate(toy_model(), QuantSpec("int8", "dynamic"))
    assert QuantizationAwareTraining().unsupported(dynamic) == reason


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x, 2 * self.weight).mean((2, 3))


TORCHAO = "torchao not installed: pip install 'quant-explorer[qat]'"
NO_FX = "this PyTorch has no torch.ao.quantization"


def test_what_cannot_be_trained_is_reported_before_training() -> None:
    training = ToyTraining()
    message = (
        r"cannot be traced .* move it out of forward.*; nor can torchao train it: .* captured by torch.export"
    )
    with pytest.raises(UnsupportedError, match=message):
        QuantizationAwareTraining().apply(
            Candidate(Branching(), STATIC), Workbench(training.batches, training)
        )
    assert training.calls == []


def test_what_only_torchao_takes_is_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that forward() computes from what is trained."""
    monkeypatch.setattr(qat, "_explain_missing_pt2e", lambda: TORCHAO)
    with pytest.raises(UnsupportedError, match=r"trains no layer whose weights forward\(\) computes: conv2d"):
        train(Functional(), STATIC, toy_batches())


def test_the_note_says_what_simulated_int8_and_why() -> None:
    fx, _ = train(toy_model(), STATIC, toy_batches())
    assert fx.notes == ("fine-tuned with the fake quantization of PyTorch's FX graph mode",)
    pytest.importorskip("torchao")
    pt2e, _ = train(Functional(), STATIC, toy_batches())
    (note,) = pt2e.notes
    assert note.startswith(
        "fine-tuned with the fake quantization of torchao's PT2E, for PyTorch's FX graph mode trains no layer"
    )


def test_a_transposed_convolution_with_a_batch_norm_is_trained_by_torchao() -> None:
    pytest.importorskip("torchao")
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    result, _ = train(model, STATIC, toy_batches())
    assert result.notes == (
        "fine-tuned with the fake quantization of torchao's PT2E, for FX graph mode cannot train the "
        "transposed convolution '0' with the batch norm '1' behind it",
    )
    assert not torch.equal(result.model.state_dict()["0.weight"], model.state_dict()["0.weight"])


class Dropping(nn.Module):
    """A path that is dropped for some images, as in timm: in evaluation mode it returns its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop whole images of `x` (n, c, h, w)."""
        return x * (torch.rand(len(x), 1, 1, 1) > 0.5) if self.training else x


class Regularized(nn.Module):
    """A residual block with the given `drop` on its branch."""

    def __init__(self, drop: Callable[[nn.Module, torch.Tensor], torch.Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.layer, self.drop, self.head = layer, drop, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        logits: torch.Tensor = self.head((x + self.drop(self, self.second(x))).mean((2, 3)))
        return logits


def _dropout(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return functional.dropout(x, 0.5, training=model.training)


def _layer(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(model, Regularized)
    dropped: torch.Tensor = model.layer(x)
    return dropped


def _doubled(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return 2 * x if model.training else x


@pytest.mark.parametrize(
    ("drop", "layer"),
    [
        pytest.param(_dropout, nn.Identity(), id="functional dropout"),
        pytest.param(_layer, torchvision.ops.StochasticDepth(0.5, "row"), id="stochastic depth"),
        pytest.param(_layer, Dropping(), id="drop path"),
    ],
)
def test_what_forward_drops_in_training_is_dropped(
    drop: Callable[[nn.Module, torch.Tensor], torch.Tensor], layer: nn.Module
) -> None:
    """As an ordinary fine-tuning step does, with the same random numbers and without rounding."""
    model, batches = Regularized(drop, layer).eval(), toy_batches()
    prepared = qat_fx.prepare(model, STATIC, batches)
    prepared.module.apply(disable_fake_quant)
    ordinary = copy.deepcopy(model)
    for trained in (ordinary, prepared.module):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            trained.train()(torch.from_numpy(batches[0])).square().sum().backward()
        with torch.no_grad():
            for parameter in trained.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.01)
    restored = prepared.restore(model)
    for name, value in ordinary.state_dict().items():
        assert not torch.equal(value, model.state_dict()[name])
        torch.testing.assert_close(restored.state_dict()[name], value)


def test_what_forward_does_in_training_alone_is_noted() -> None:
    other, _ = train(Regularized(_doubled, nn.Identity()).eval(), STATIC, toy_batches())
    assert "was left out" in other.notes[-1]
    same, _ = train(Regularized(_dropout, nn.Identity()).eval(), STATIC, toy_batches())
    assert "was left out" not in same.notes[-1]


class Scaled(nn.Module):
    """Logits times a constant that is a buffer, so that it moves with the model."""

    def __init__(self) -> None:
        super().__init__()
        self.body = toy_model()
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.scale, torch.Tensor)
        logits: torch.Tensor = self.body(x) * self.scale
        return logits


def test_buffers_that_no_checkpoint_keeps_are_not_missed() -> None:
    model = Scaled().eval()
    result, _ = train(model, STATIC, toy_batches())
    before, after = model.state_dict(), result.model.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["body.0.weight"], after["body.0.weight"])


def test_a_norm_that_is_called_as_a_function_is_trained_by_torchao() -> None:
    pytest.importorskip("torchao")

    def drop(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(model, Regularized)
        norm = model.layer
        assert isinstance(norm, nn.BatchNorm2d)
        return functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, model.training
        )

    model = Regularized(drop, nn.BatchNorm2d(8)).eval()
    result, _ = train(model, STATIC, toy_batches())
    assert "trains no norm that forward() calls as a function" in result.notes[0]
    assert not torch.equal(
        result.model.state_dict()["layer.running_mean"], model.state_dict()["layer.running_mean"]
    )


def test_what_fx_cannot_fuse_is_not_called_untraceable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "_explain_missing_pt2e", lambda: TORCHAO)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4, affine=False), nn.Flatten()).eval()
    with pytest.raises(UnsupportedError, match=r"cannot prepare the model .* affine set to True"):
        train(model, STATIC, toy_batches())


def test_without_either_it_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = Candidate(toy_model(), STATIC)
    monkeypatch.setattr(qat, "_explain_missing_pt2e", lambda: TORCHAO)
    assert QuantizationAwareTraining().unsupported(candidate) is None
    monkeypatch.setattr(qat, "_explain_missing_fx", lambda: NO_FX)
    reason = QuantizationAwareTraining().unsupported(candidate)
    assert reason == f"quantization-aware training needs torchao, for {NO_FX}; {TORCHAO}"
