"""A pruned model computes what the original computes without the channels that were removed."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import fx, nn

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.settings.groups import Importance
from quant_explorer.models import load_model
from quant_explorer.techniques.prune import ChannelPruning
from quant_explorer.testing.reference import differences, float_logits
from quant_explorer.testing.toys import ToyTraining, settle_batch_norms, toy_batches, toy_model

BATCHES = toy_batches()
ROUNDING = 1e-5
IMPORTANCES: tuple[Importance, ...] = ("l1", "l2", "taylor", "batch_norm")


class Residual(nn.Module):
    """A stem that is added to what a depthwise and a dense convolution make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.dense, self.norm3 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.relu(self.norm1(self.stem(images)))
        branch = self.norm3(self.dense(self.relu(self.norm2(self.depthwise(stem)))))
        logits: torch.Tensor = self.head(self.relu(stem + branch).mean((2, 3)))
        return logits


class FixedSize(nn.Module):
    """Its forward says in numbers how many channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 14 * 14, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.convolution(images).view(-1, 8 * 14 * 14))
        return logits


class Rotated(nn.Module):
    """Channels that are taken apart by a step and stacked again, as rotary positions do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 16), nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.convolution(images).flatten(1)
        for _ in range(2):
            x = x * 0.5 + torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        logits: torch.Tensor = self.head(x)
        return logits


class RootMeanSquare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 8, 16), nn.Linear(8, 8)
        self.norm, self.head = nn.RMSNorm(8), nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(images).flatten(1))
        logits: torch.Tensor = self.head(self.inner(x).relu())
        return logits


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = make()
        settle_batch_norms(model)
    return model.eval()


def flattened() -> nn.Module:
    """A linear layer reads nine values of each channel, and others follow."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(8 * 9, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, groups=3),
        nn.BatchNorm2d(24),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


class Wired(nn.Module):
    """A stem of 12 channels, `wiring` and a layer of `width` channels in and 12 out, and a classifier."""

    def __init__(
        self, wiring: Callable[[torch.Tensor], torch.Tensor], *, width: int = 12, groups: int = 1
    ) -> None:
        super().__init__()
        self.stem, self.wiring = nn.Conv2d(3, 12, 3), wiring
        self.layer = nn.Conv2d(width, 12, 3, groups=groups)
        self.head = nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = self.layer(self.wiring(self.stem(images).relu()))
        logits: torch.Tensor = self.head(inner.relu().mean((2, 3)))
        return logits


class SqueezeExcitation(nn.Module):
    """Channels scaled by what two linear layers make of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(12, 6), nn.Linear(6, 12)

    def forward(self, inner: torch.Tensor) -> torch.Tensor:
        gates = self.up(self.down(inner.mean((2, 3))).relu()).sigmoid()
        scaled: torch.Tensor = inner * gates[:, :, None, None]
        return scaled


def shuffle(inner: torch.Tensor) -> torch.Tensor:
    """Interleave three groups of channels, as ShuffleNet does."""
    count, channels, height, width = inner.shape
    return inner.view(count, 3, channels // 3, height, width).transpose(1, 2).reshape(inner.shape)


def shuffled() -> nn.Module:
    return Wired(shuffle)


def swap_halves(inner: torch.Tensor) -> torch.Tensor:
    first, second = inner.chunk(2, 1)
    return torch.cat([second, first], 1)


def pruned(model: nn.Module, technique: ChannelPruning) -> nn.Module:
    return technique.prune(model, BATCHES).model


def tensors(model: nn.Module) -> dict[str, NDArray[np.float64]]:
    return {name: value.detach().double().numpy() for name, value in model.state_dict().items()}


def removed(before: NDArray[np.float64], after: NDArray[np.float64]) -> list[int]:
    """Which values of a vector, all different, are gone."""
    assert len(set(before)) == len(before)
    return [position for position, value in enumerate(before) if value not in after]


def gradients(model: nn.Module) -> dict[str, NDArray[np.float64]]:
    """Of the cross entropy with the predicted classes, over all calibration images."""
    model = copy.deepcopy(model)
    for batch in BATCHES:
        logits = model(torch.from_numpy(batch))
        probabilities = logits.softmax(1)
        (-probabilities.max(1).values.log()).sum().backward()
    found: dict[str, NDArray[np.float64]] = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.double().numpy()
    return found


def importance_by_hand(kind: Importance, model: nn.Module, made: str, norm: str, read: str) -> list[float]:
    """Of the channels that `made` makes, `norm` normalizes and `read` reads, one at a time."""
    weights = tensors(model)
    slopes = gradients(model)
    scores = []
    for channel in range(len(weights[f"{norm}.weight"])):
        parts = {
            name: (weights[name][at], slopes[name][at])
            for name, at in (
                (f"{made}.weight", np.s_[channel]),
                (f"{norm}.weight", np.s_[channel]),
                (f"{read}.weight", np.s_[:, channel]),
            )
        }
        layers = [parts[f"{made}.weight"], parts[f"{read}.weight"]]
        scores.append(
            {
                "l1": sum(float(np.abs(weight).sum()) for weight, _ in parts.values()) / 3,
                "l2": sum(float((weight**2).sum()) for weight, _ in parts.values()) / 3,
                "taylor": sum(float(np.abs(weight * slope).sum()) for weight, slope in layers) / 2,
                "batch_norm": abs(float(parts[f"{norm}.weight"][0])),
            }[kind]
        )
    return scores


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_a_chain_computes_what_it_did_without_the_least_important_channels(
    importance: Importance, ratio: float
) -> None:
    model = toy_model()
    result = pruned(model, ChannelPruning(ratio, importance))
    without = copy.deepcopy(model)
    for made, norm, read in (("0", "1", "4"), ("4", "5", "9")):
        scores = importance_by_hand(importance, model, made, norm, read)
        least = np.argsort(scores)[: round(ratio * len(scores))].tolist()
        before, after = (tensors(network)[f"{norm}.weight"] for network in (model, result))
        assert removed(before, after) == sorted(least)
        with torch.no_grad():
            without.get_parameter(f"{read}.weight")[:, least] = 0
    expected = float_logits(without, BATCHES[0])
    np.testing.assert_allclose(float_logits(result, BATCHES[0]), expected, rtol=0, atol=ROUNDING)
    assert np.abs(expected - float_logits(model, BATCHES[0])).max() > 100 * ROUNDING


def test_a_linear_layer_behind_flatten_loses_all_columns_of_a_channel() -> None:
    model = seeded(flattened)
    result = pruned(model, ChannelPruning(0.4))
    channels = removed(tensors(model)["1.weight"], tensors(result)["1.weight"])
    features = removed(tensors(model)["5.bias"], tensors(result)["5.bias"])
    assert (len(channels), len(features)) == (3, 4)
    without = copy.deepcopy(model)
    with torch.no_grad():
        for channel in channels:
            without.get_parameter("5.weight")[:, 9 * channel : 9 * channel + 9] = 0
        without.get_parameter("7.weight")[:, features] = 0
    np.testing.assert_allclose(
        float_logits(result, BATCHES[0]), float_logits(without, BATCHES[0]), rtol=0, atol=ROUNDING
    )


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_what_is_added_or_filtered_by_itself_is_pruned_together(importance: Importance) -> None:
    model = seeded(Residual)
    result = pruned(model, ChannelPruning(0.5, importance))
    norms = ("norm1", "norm2", "norm3")
    channels, *others = [
        removed(tensors(model)[f"{name}.weight"], tensors(result)[f"{name}.weight"]) for name in norms
    ]
    assert len(channels) == 4
    assert others == [channels, channels]
    without = copy.deepcopy(model)
    with torch.no_grad():
        for reader in ("dense", "head"):
            without.get_parameter(f"{reader}.weight")[:, channels] = 0
    np.testing.assert_allclose(
        float_logits(result, BATCHES[0]), float_logits(without, BATCHES[0]), rtol=0, atol=ROUNDING
    )


def test_blocks_of_a_grouped_convolution_stay_equally_wide() -> None:
    result = pruned(seeded(grouped), ChannelPruning(0.5))
    assert isinstance(result, nn.Sequential)
    convolution = result[2]
    assert isinstance(convolution, nn.Conv2d)
    assert (convolution.in_channels, convolution.out_channels, convolution.groups) == (6, 12, 3)
    assert float_logits(result, BATCHES[0]).shape == (8, 4)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: Wired(nn.Identity()), ()),
        (lambda: Wired(nn.PReLU(12)), ()),
        (lambda: Wired(nn.InstanceNorm2d(12, affine=True)), ()),
        (lambda: Wired(nn.Conv2d(12, 12, 1, groups=12)), ()),
        (lambda: Wired(nn.Identity(), groups=3), ()),
        (lambda: Wired(SqueezeExcitation()), ()),
        (lambda: Wired(lambda inner: torch.cat([inner, inner.sigmoid()], 1), width=24), ()),
        (shuffled, ("stem",)),
        (lambda: Wired(swap_halves), ("stem",)),
        (lambda: Wired(lambda inner: inner * inner.mean(1, keepdim=True)), ("stem",)),
        (lambda: Wired(lambda inner: inner * inner.softmax(1)), ("stem",)),
        (lambda: Wired(nn.GroupNorm(4, 12)), ("stem",)),
    ],
    ids=[
        *("chain", "PReLU", "InstanceNorm", "depthwise", "grouped", "SE", "cat"),
        *("shuffle", "chunk", "mean", "softmax", "GroupNorm"),
    ],
)
def test_a_group_that_is_not_what_it_was_without_its_channels_is_left_whole(
    make: Callable[[], nn.Module], left: tuple[str, ...]
) -> None:
    """What is pruned computes what the model does with the weights at zero: checked here by other means."""
    model = seeded(make)
    found = ChannelPruning(0.5).prune(model, BATCHES)
    assert tuple(name.partition(",")[0] for name in found.whole) == left
    before, after = tensors(model), tensors(found.model)
    assert len(after["stem.bias"]) == (12 if left else 6)
    assert after["head.weight"].shape[1] == 6
    zeroed = copy.deepcopy(model)
    weights = dict(zeroed.named_parameters())
    with torch.no_grad():
        weights["head.weight"][:, removed(before["layer.bias"], after["layer.bias"])] = 0
        if "wiring.down.bias" in weights:
            gone = removed(before["wiring.down.bias"], after["wiring.down.bias"])
            weights["wiring.up.weight"][:, gone] = 0
        columns = weights["layer.weight"]
        for channel in removed(before["stem.bias"], after["stem.bias"]):
            weights["stem.weight"][channel] = weights["stem.bias"][channel] = 0
            # What the wiring makes of zeros may be another number. The groups of a layer lose the same ones.
            columns[:, channel % columns.shape[1] :: 12] = 0
    np.testing.assert_allclose(
        float_logits(found.model, BATCHES[0]), float_logits(zeroed, BATCHES[0]), rtol=0, atol=ROUNDING
    )


def test_what_is_left_whole_is_reported_with_the_reason() -> None:
    candidate = Candidate(seeded(shuffled), QuantSpec())
    _, note = ChannelPruning(0.5).apply(candidate, Workbench(BATCHES, ToyTraining())).notes
    assert note.startswith("not pruned: stem, whose channels are connected in a way that is not followed")
    candidate = Candidate(seeded(lambda: Wired(nn.GroupNorm(4, 12))), QuantSpec())
    _, note = ChannelPruning(0.5).apply(candidate, Workbench(BATCHES, ToyTraining())).notes
    assert note == "not pruned: stem, whose channels wiring takes its statistics over"


@pytest.mark.parametrize(
    ("ratio", "round_to", "widths"),
    [
        (0.5, 1, [4, 8]),
        # Rounded, halves to even: 8 * 0.3 = 2.4 and 16 * 0.3 = 4.8 go.
        (0.3, 1, [6, 11]),
        (0.3, 4, [8, 12]),
        (0.5, 8, [8, 8]),
        (0.99, 1, [1, 1]),
        (0.99, 4, [4, 4]),
    ],
)
def test_how_many_channels_stay(ratio: float, round_to: int, widths: list[int]) -> None:
    result = pruned(toy_model(), ChannelPruning(ratio, round_to=round_to))
    found = [module.out_channels for module in result.modules() if isinstance(module, nn.Conv2d)]
    assert found == widths


def test_the_ratio_reached_is_noted_beside_the_ratio_asked() -> None:
    earlier = Candidate(toy_model(), QuantSpec("int8", "static"), notes=("earlier",))
    result = ChannelPruning(0.4, round_to=4).apply(earlier, Workbench(BATCHES, ToyTraining()))
    assert result.spec == earlier.spec
    # 8 and 16 channels become 8 and 12. By hand: convolutions, batch norms, classifier.
    parameters = [216 + 2 * 8 + 72 * wide + 2 * wide + 4 * wide + 4 for wide in (16, 12)]
    macs = [27 * 8 * 256 + 72 * wide * 64 + 4 * wide for wide in (16, 12)]
    assert result.notes[0] == "earlier"
    assert result.notes[1:] == (
        f"pruned: 40.0% of the channels asked, {4 / 24:.1%} reached; "
        f"{1 - parameters[1] / parameters[0]:.1%} of the parameters ({parameters[0]:,} to {parameters[1]:,}) "
        f"and {1 - macs[1] / macs[0]:.1%} of the multiply-accumulates ({macs[0]:,} to {macs[1]:,}) are gone",
    )


def test_frozen_parameters_stay_frozen_and_no_gradient_is_left() -> None:
    model = toy_model()
    model[0].requires_grad_(False)
    for importance in IMPORTANCES:
        result = pruned(model, ChannelPruning(importance=importance))
        flags = {name: parameter.requires_grad for name, parameter in result.named_parameters()}
        assert [name for name, trainable in flags.items() if not trainable] == ["0.weight"]
        assert all(parameter.grad is None for parameter in result.parameters())


def test_the_callers_autograd_mode_does_not_matter() -> None:
    expected = pruned(toy_model(), ChannelPruning(importance="taylor"))
    with torch.no_grad():
        assert differences(expected, pruned(toy_model(), ChannelPruning(importance="taylor"))) == []


@pytest.mark.parametrize(
    ("technique", "model", "reason"),
    [
        (ChannelPruning(0.0), toy_model, "ratio 0.0 is out of range"),
        (ChannelPruning(1.0), toy_model, "ratio 1.0 is out of range"),
        (ChannelPruning(float("nan")), toy_model, "ratio nan is out of range"),
        (ChannelPruning(importance="l3"), toy_model, "Allowed: l1, l2, taylor, batch_norm"),  # type: ignore[arg-type]
        (ChannelPruning(round_to=0), toy_model, "round_to 0 is out of range"),
        (ChannelPruning(importance="batch_norm"), shuffled, "no batch norm .* use l1, l2 or taylor"),
        (ChannelPruning(), lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), "no channels to remove"),
    ],
)
def test_what_cannot_be_pruned_is_a_reason(
    technique: ChannelPruning, model: Callable[[], nn.Module], reason: str
) -> None:
    found = technique.unsupported(Candidate(model(), QuantSpec()))
    assert found is not None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found)


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(extra: str, *packages: str) -> str:
        return f"{packages} of {extra}"

    monkeypatch.setattr("quant_explorer.techniques.prune.explain_missing", missing)
    reason = ChannelPruning().unsupported(Candidate(toy_model(), QuantSpec()))
    assert reason == "('torch-pruning',) of prune"


def test_the_library_is_not_imported_to_say_what_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    assert ChannelPruning().unsupported(Candidate(toy_model(), QuantSpec())) is None
    with pytest.raises(UnsupportedError, match="torch_pruning"):
        pruned(toy_model(), ChannelPruning())


@pytest.mark.parametrize(
    ("model", "ratio", "reason"),
    [
        (
            FixedSize,
            0.5,
            r"not pruned: convolution, without whose channels the model fails \(mat1",
        ),
        (toy_model, 0.01, "no channel can be removed at ratio 0.01: 24 channels lie between"),
        (Rotated, 0.5, "cannot be followed through its layers .the channels come back to where they were"),
    ],
)
def test_what_turns_out_not_to_be_possible_is_a_reason(
    model: Callable[[], nn.Module], ratio: float, reason: str
) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        pruned(model().eval(), ChannelPruning(ratio))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("small_cnn", (3, 32, 32)),
        ("edge_cnn", (1, 28, 28)),
        pytest.param("resnet18", (3, 224, 224), marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_large", (3, 224, 224), marks=pytest.mark.slow),
        pytest.param("vgg11_bn", (3, 224, 224), marks=pytest.mark.slow),
    ],
)
def test_every_model_is_pruned_runs_and_can_be_traced(name: str, shape: tuple[int, int, int]) -> None:
    model = load_model(name, weights=None, classes=7, image_shape=shape, seed=0).module
    batches = toy_batches(shape, count=1, size=2)
    found = ChannelPruning(0.5).prune(model, batches)
    assert found.channels[1] / found.channels[0] == pytest.approx(0.5, abs=0.01)
    # Both sides of nearly every layer are halved.
    assert 0.2 < found.parameters[1] / found.parameters[0] < 0.3
    assert 0.2 < found.macs[1] / found.macs[0] < 0.3
    assert found.parameters[1] == sum(parameter.numel() for parameter in found.model.parameters())
    logits = float_logits(found.model, batches[0])
    assert logits.shape == (2, 7)
    traced = fx.symbolic_trace(found.model)
    np.testing.assert_allclose(float_logits(traced, batches[0]), logits, rtol=0, atol=ROUNDING)


def test_an_rms_norm_takes_its_statistics_over_the_channels() -> None:
    found = ChannelPruning(0.5).prune(seeded(RootMeanSquare).eval(), BATCHES)
    assert found.whole == ("stem, whose channels norm takes its statistics over",)
    assert found.model.get_submodule("inner").get_parameter("weight").shape == (4, 8)
