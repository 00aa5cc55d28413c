"""Half precision in PyTorch: which types run, what stays float32, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Candidate, Runtime
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import Precision, QuantSpec
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.runtimes.torch_graph import fusion, half
from quant_explorer.runtimes.torch_graph.macs import count_macs
from quant_explorer.runtimes.torchscript.runtime import TorchScript
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import (
    TOY_CONVOLUTION_MACS,
    TOY_LINEAR_MACS,
    toy_batches,
    toy_linear_model,
    toy_model,
)

BATCHES = toy_batches()
# Bits of the significand, with the one that is not stored.
DIGITS: dict[Precision, int] = {"bf16": 8, "fp16": 11}
RUNTIMES = [Eager(), TorchScript()]


@pytest.fixture(params=DIGITS)
def precision(request: pytest.FixtureRequest) -> Precision:
    found: Precision = request.param
    return found


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_one_layer_is_as_exact_as_its_formula(runtime: Runtime, precision: Precision, tmp_path: Path) -> None:
    """Rounding to p digits is off by 2**-p of the value: one of input, weight, bias and output each."""
    model, batches = toy_linear_model(), toy_batches((3, 4, 4))
    runtime.lower(Candidate(model, QuantSpec(precision)), batches, tmp_path)
    logits = runtime.open(tmp_path).run(batches[0])
    assert logits.dtype == np.float32
    weight, bias = (np.abs(parameter.detach().numpy()).astype(float) for parameter in model.parameters())
    products = np.abs(batches[0].reshape(len(logits), -1)) @ weight.T
    unit = 2.0 ** -DIGITS[precision]
    bound = 2.01 * unit * products + unit * bias + 1.01 * unit * (products + bias)
    error = np.abs(logits - float_logits(model, batches[0]))
    assert np.all(error <= bound)
    assert error.max() > 2.0**-20, "nothing was rounded to 16 bits"


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
def test_weights_take_half_the_bytes(runtime: Runtime, precision: Precision, tmp_path: Path) -> None:
    """Of those of FP32, beside what does not depend on the precision."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 256), nn.ReLU(), nn.Linear(256, 4)).eval()
    sizes = []
    for spec in (QuantSpec(), QuantSpec(precision)):
        folder = tmp_path / spec.precision
        folder.mkdir()
        runtime.lower(Candidate(model, spec), BATCHES, folder)
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert sizes[0] - sizes[1] == pytest.approx(2 * parameters, rel=0.002)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("layer", ["4", "9"])
def test_float_layers_stay_float(runtime: Runtime, layer: str, precision: Precision, tmp_path: Path) -> None:
    spec = QuantSpec(precision, float_layers=(layer,))
    runtime.lower(Candidate(toy_model(), spec), BATCHES, tmp_path)
    executed = runtime.open(tmp_path).executed(BATCHES[0])
    kept = {"4": 16 * 8 * 8 * 8 * 9, "9": TOY_LINEAR_MACS}[layer]
    assert executed.macs == {precision: TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS - kept, "fp32": kept}


def test_a_module_in_float_layers_keeps_all_inside(precision: Precision) -> None:
    model = nn.Sequential(toy_model()).eval()
    graph, _ = half.cast(fusion.fuse(model, BATCHES[0]), precision, ("0",), BATCHES[0])
    assert count_macs(graph, BATCHES[0]).macs == {"fp32": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS}


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
@pytest.mark.parametrize("missing", [False, True])
def test_without_kernels_for_this_cpu_it_is_unsupported(
    runtime: Runtime, missing: bool, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half, "_has_kernels", lambda _: not missing)
    reason = runtime.unsupported(Candidate(toy_model(), QuantSpec(precision)))
    if missing:
        assert reason is not None
        assert reason.startswith(f"PyTorch has no {precision} kernels for this CPU")
    else:
        assert reason is None
    assert runtime.unsupported(Candidate(toy_model(), QuantSpec())) is None


def test_a_pytorch_without_onednn_has_no_kernels(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert half.explain_missing_kernels(precision) is not None


@pytest.mark.parametrize(
    ("precision", "capability"), [("bf16", "amx_bf16"), ("bf16", "avx512_bf16"), ("fp16", "avx512_fp16")]
)
def test_emulation_is_noted(
    precision: Precision, capability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = Candidate(toy_model(), QuantSpec(precision))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    (note,) = Eager().lower(candidate, BATCHES, tmp_path).notes
    assert f"no {precision} arithmetic" in note
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    assert Eager().lower(candidate, BATCHES, tmp_path).notes == ()


class Doubled(nn.Module):
    """Float32 by its own doing, which the next layer in 16 bits cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(768, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x.flatten(1).float() * 2.0)
        return logits


def test_a_layer_behind_float32_reads_16_bits(precision: Precision) -> None:
    model = Doubled().eval()
    graph, notes = half.cast(fusion.fuse(model, BATCHES[0]), precision, (), BATCHES[0])
    assert notes == ()
    assert count_macs(graph, BATCHES[0]).macs == {precision: 768 * 4}
    exact = float_logits(model, BATCHES[0])
    logits = float_logits(graph, BATCHES[0])
    assert np.abs(logits - exact).max() < 2.0 ** (2 - DIGITS[precision]) * np.abs(exact).max()


class Normalized(nn.Module):
    """PyTorch's local response norm calls a pool that has kernels for float32 and float64 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LocalResponseNorm(3), nn.Linear(768, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(x).flatten(1))
        return logits


def test_what_has_no_kernel_stays_float32(precision: Precision) -> None:
    model = Normalized().eval()
    graph, (note,) = half.cast(fusion.fuse(model, BATCHES[0]), precision, (), BATCHES[0])
    assert note == f"in float32, as PyTorch has no {precision} kernel: layer norm"
    exact = float_logits(model, BATCHES[0])
    logits = float_logits(graph, BATCHES[0])
    assert 0 < np.abs(logits - exact).max() < 2.0 ** (2 - DIGITS[precision]) * np.abs(exact).max()


class Counted(nn.Module):
    """Chooses by a number of 12 digits, which is another one in 8 or 11, and out of range."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = torch.cat([x.flatten(1)] * 6, 1)
        chosen = (values[0, :4].abs().clamp(max=0) + values.shape[1] - 1).long()
        return values[:, chosen]


def test_what_cannot_run_at_all_is_refused(precision: Precision) -> None:
    graph = fusion.fuse(Counted().eval(), BATCHES[0])
    with pytest.raises(UnsupportedError, match=f"operator getitem cannot run in {precision} "):
        half.cast(graph, precision, (), BATCHES[0])


def test_values_too_large_for_fp16_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).eval()
    with torch.no_grad():
        model[1].bias.fill_(70000.0)  # type: ignore[operator]
    with pytest.raises(UnsupportedError, match="computes values beyond 65504, the largest of fp16"):
        half.cast(fusion.fuse(model, BATCHES[0]), "fp16", (), BATCHES[0])
    assert half.cast(fusion.fuse(model, BATCHES[0]), "bf16", (), BATCHES[0])[1] == ()
