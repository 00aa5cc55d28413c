"""Training through torchao computes what training through FX computes, and gives a float model back."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn import functional as F

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import Granularity, Observer, QuantSpec
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.techniques import qat, qat_fx
from quant_explorer.techniques.qat import FakeQuantized, QuantizationAwareTraining
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import ToyTraining, settle_batch_norms, toy_batches, toy_model

pytest.importorskip("torchao")
from torchao.quantization.pt2e import FakeQuantize

from quant_explorer.techniques import qat_pt2e

BATCHES = toy_batches()
IMAGES = torch.from_numpy(BATCHES[0])
STATIC = QuantSpec("int8", "static")
NO_FX = "this PyTorch has no torch.ao.quantization"


class Unusual(nn.Module):
    """Batch norms with settings of their own, an addition, and a layer that forward() leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8, eps=0.3, momentum=0.4)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8, eps=0.01, momentum=0.02)
        self.head, self.auxiliary = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.first(x)))
        x = F.relu(x + self.norm2(self.second(x)))
        logits: torch.Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def unusual() -> Unusual:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        model = Unusual()
        settle_batch_norms(model)
    return model.eval()


def without_batch_norm(dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(4)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 2, 2),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8 * 14 * 14, 4),
        ).eval()


def held(prepared: FakeQuantized, kind: type[nn.Module], dtype: torch.dtype) -> set[tuple[float, int]]:
    """Return scale and zero point of every activation."""
    found = [part for part in prepared.module.modules() if isinstance(part, kind) and part.dtype == dtype]
    grids = [(part.get_buffer("scale"), part.get_buffer("zero_point")) for part in found]
    return {(round(scale.item(), 8), int(zero_point.item())) for scale, zero_point in grids}


@pytest.mark.parametrize(
    ("make", "granularity", "observer"),
    [(unusual, "per_channel", "histogram"), (without_batch_norm, "per_tensor", "minmax")],
)
def test_it_simulates_and_trains_what_fx_does(
    make: Callable[[], nn.Module], granularity: Granularity, observer: Observer
) -> None:
    """The same ranges, outputs that differ where a tie is rounded the other way, steps in the same direction.

    Also with eps and momentum that are not PyTorch's defaults. FX rounds again behind a Flatten.
    """
    model, spec = make(), QuantSpec("int8", "static", granularity, observer)
    by_fx, by_pt2e = qat_fx.prepare(model, spec, BATCHES), qat_pt2e.prepare(model, spec, BATCHES)
    expected, found = (
        held(by_fx, quantization.FakeQuantize, torch.quint8),
        held(by_pt2e, FakeQuantize, torch.uint8),
    )
    assert len(expected & found) == min(len(expected), len(found)) >= 4
    step = (by_fx.activation_ranges[-1].high - by_fx.activation_ranges[-1].low) / 255
    logits = [prepared.module.eval()(IMAGES) for prepared in (by_fx, by_pt2e)]
    assert (logits[0] - logits[1]).abs().max() <= 2.01 * step
    assert (logits[0] - model(IMAGES)).abs().max() > 0.1 * step

    before = {name: value.double() for name, value in model.state_dict().items()}
    moves = []
    for prepared in (by_fx, by_pt2e):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            ToyTraining(BATCHES)(prepared.module, epochs=1, learning_rate=0.05, label="")
        after = prepared.restore(model).state_dict()
        moves.append({name: after[name].double() - value for name, value in before.items()})
    parameters = [name for name, _ in model.named_parameters() if not name.startswith("auxiliary")]
    trained = [torch.cat([move[name].flatten() for name in parameters]) for move in moves]
    assert (trained[1] - trained[0]).norm() < 0.3 * trained[0].norm()
    for name in before.keys() - set(parameters):
        # An exported graph counts no batches.
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(moves[1][name], moves[0][name], rtol=0.05, atol=1e-3)
            assert moves[1][name].any() == name.endswith(("running_mean", "running_var"))


def test_the_result_is_a_float_model_whose_int8_is_what_was_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(qat, "_explain_missing_fx", lambda: NO_FX)
    model, training = toy_model(), ToyTraining(BATCHES)
    spec = QuantSpec("int8", "static", "per_tensor", "minmax")
    technique = QuantizationAwareTraining(learning_rate=0.1)
    result = technique.apply(Candidate(model, spec), Workbench(BATCHES, training))
    assert type(result.model) is type(model)
    assert not any(module.training for module in result.model.modules())
    assert result.spec == spec
    assert result.notes == (f"fine-tuned with the fake quantization of torchao's PT2E, for {NO_FX}",)
    trained = float_logits(training.calls[0].model.eval(), BATCHES[0])
    shipped = []
    for name, candidate in (("trained", result), ("untrained", Candidate(model, spec))):
        (tmp_path / name).mkdir()
        Eager().lower(candidate, BATCHES, tmp_path / name)
        shipped.append(Eager().open(tmp_path / name).run(BATCHES[0]))
    # Eager calibrates again, on other activations than those whose ranges were held.
    errors = [float(np.abs(logits - trained).max() / np.abs(trained).max()) for logits in shipped]
    assert errors[0] < 0.1
    assert errors[1] > 5 * errors[0]


def test_modes_follow_train_and_eval() -> None:
    """Of a copy too, which is how the training loop computes parts of a batch side by side."""
    module = qat_pt2e.prepare(without_batch_norm(dropout=0.5), STATIC, BATCHES).module.eval()
    expected = module(IMAGES)
    copied = copy.deepcopy(module).train()
    assert not torch.equal(copied(IMAGES), copied(IMAGES))
    torch.testing.assert_close(module(IMAGES), expected, rtol=0, atol=0)
    torch.testing.assert_close(copied.eval()(IMAGES), expected, rtol=0, atol=0)
    assert module(IMAGES[:1]).shape == (1, 4)


def test_layers_stay_in_float() -> None:
    spec = QuantSpec("int8", "static", "per_channel", float_layers=("0", "6"))
    prepared = qat_pt2e.prepare(without_batch_norm(), spec, BATCHES)
    quantizers = [part for part in prepared.module.modules() if isinstance(part, FakeQuantize)]
    # Input, output and weight of the transposed convolution, whose weight has one scale.
    assert sorted(str(part.dtype) for part in quantizers) == ["torch.int8", "torch.uint8", "torch.uint8"]
    assert {len(part.scale) for part in quantizers} == {1}


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (nn.BatchNorm2d(8, affine=False), "torchao cannot prepare the exported graph for training"),
        (nn.BatchNorm2d(8, momentum=None), "the batch norm '1' averages over all batches"),
    ],
)
def test_what_torchao_cannot_fold_is_refused(norm: nn.Module, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with pytest.raises(UnsupportedError, match=message):
        qat_pt2e.prepare(model.eval(), STATIC, BATCHES)
