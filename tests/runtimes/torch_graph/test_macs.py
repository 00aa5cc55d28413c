"""Multiply-accumulates against the textbook formula, and against figures that torchvision publishes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes.eager.runtime import select_engine
from quant_explorer.runtimes.torch_graph import fx
from quant_explorer.runtimes.torch_graph.engine import explain_transposed, quantized_engine
from quant_explorer.runtimes.torch_graph.macs import count_macs
from quant_explorer.testing.toys import toy_batches

IMAGES = toy_batches((8, 12, 12), count=1, size=3)

# Output elements x weights of a filter; a transposed convolution has input elements x weights instead.
LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "dense": (lambda: nn.Conv2d(8, 16, 3), 16 * 10 * 10 * 8 * 9),
    "padded and strided": (lambda: nn.Conv2d(8, 16, 3, stride=2, padding=1), 16 * 6 * 6 * 8 * 9),
    "dilated": (lambda: nn.Conv2d(8, 16, 3, dilation=2), 16 * 8 * 8 * 8 * 9),
    "grouped": (lambda: nn.Conv2d(8, 16, 3, groups=4), 16 * 10 * 10 * 2 * 9),
    "depthwise": (lambda: nn.Conv2d(8, 8, 5, padding=2, groups=8), 8 * 12 * 12 * 25),
    "not square": (lambda: nn.Conv2d(8, 4, (1, 7), bias=False), 4 * 12 * 6 * 8 * 7),
    "fused": (
        lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU()),
        16 * 10 * 10 * 8 * 9,
    ),
    "transposed": (lambda: nn.ConvTranspose2d(8, 4, 2, stride=2), 8 * 12 * 12 * 4 * 4),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(1152, 5)), 1152 * 5),
    "linear with relu": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(1152, 5, bias=False), nn.ReLU()),
        1152 * 5,
    ),
    "linear at every place": (lambda: nn.Linear(12, 7), 8 * 12 * 12 * 7),
    "none": (lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), 0),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_float_layers(layer: str) -> None:
    make, expected = LAYERS[layer]
    assert count_macs(nn.Sequential(make()).eval(), IMAGES[0]).macs == (
        {"fp32": expected} if expected else {}
    )


class _Branched(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.cond(x.sum() > 0, lambda y: y @ y.mT @ y, lambda y: y @ y, (x,))
        return result


def test_the_branch_that_is_taken_is_counted() -> None:
    images = np.ones((2, 8, 12, 12), np.float32)
    program = torch.export.export(_Branched().eval(), (torch.from_numpy(images),)).module()
    assert count_macs(program, images).macs == {"fp32": 2 * 8 * 12**3}
    assert count_macs(program, -images).macs == {"fp32": 8 * 12**3}


@pytest.mark.parametrize("layer", LAYERS)
def test_static_int8_layers(layer: str) -> None:
    make, expected = LAYERS[layer]
    torch.manual_seed(0)
    spec, engine = QuantSpec("int8", "static", observer="minmax"), select_engine("")
    reason = explain_transposed(spec, engine) if layer == "transposed" else None
    if reason:
        pytest.skip(reason)
    candidate = Candidate(nn.Sequential(make()).eval(), spec)
    with quantized_engine(engine):
        module = fx.quantize(candidate, IMAGES, engine).module
    executed = count_macs(module, IMAGES[0])
    assert executed.macs == ({"int8": expected} if expected else {})
    assert all("quantized" in kernel for kernel in executed.kernels)
    assert executed.fraction("int8") == (1.0 if expected else 0.0)


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers(kind: Callable[..., nn.Module], gates: int) -> None:
    """PyTorch computes an LSTM by an operator of oneDNN, the others by linear layers."""
    rows = kind(12, 7, num_layers=2, bidirectional=True, batch_first=True).eval()
    first, second = (12 + 7), (2 * 7 + 7)
    assert count_macs(rows, IMAGES[0][:, 0]).macs == {"fp32": 2 * 12 * gates * 7 * (first + second)}


def test_what_stays_in_float_is_named_with_its_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 4, 1))).eval()
    spec = QuantSpec("int8", "static", observer="minmax", float_layers=("1.1",))
    engine = select_engine("")
    with quantized_engine(engine):
        module = fx.quantize(Candidate(model, spec), IMAGES, engine).module
        executed = count_macs(module, IMAGES[0])
        frozen = count_macs(torch.jit.freeze(torch.jit.trace(module, torch.from_numpy(IMAGES[0]))), IMAGES[0])
    assert executed.in_float == ("convolution of layer '1.1'",)
    assert frozen.macs == executed.macs
    # A frozen graph knows no layers.
    assert [name.partition(" ")[0] for name in frozen.in_float] == ["convolution"]
    assert count_macs(model, IMAGES[0]).in_float == ()


@pytest.mark.parametrize("layer", ["linear", "linear with relu", "linear at every place"])
def test_dynamic_int8_layers(layer: str) -> None:
    make, expected = LAYERS[layer]
    module = fx.quantize(
        Candidate(nn.Sequential(make()).eval(), QuantSpec("int8", "dynamic")), IMAGES, "fbgemm"
    ).module
    assert count_macs(module, IMAGES[0]).macs == {"int8": expected}


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bf16"), (torch.float16, "fp16")])
def test_half_precision_has_its_own_name(dtype: torch.dtype, name: str) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1152, 5, dtype=dtype)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(x.flatten(1).to(dtype))
            return out

    assert count_macs(Half(), IMAGES[0]).macs == {name: 1152 * 5}


@pytest.mark.parametrize("fast_path", [True, False])
def test_attention_is_counted_whichever_kernel_it_takes(fast_path: bool) -> None:
    """Input and output projections, queries times keys, weights times values."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            out: torch.Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return out

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        executed = count_macs(Attention().eval(), IMAGES[0])
        assert torch.backends.mha.get_fastpath_enabled() == fast_path
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert executed.macs == {"fp32": 144 * 8 * 24 + 2 * 144 * 144 * 8 + 144 * 8 * 8}


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
def test_figures_of_torchvision(name: str) -> None:
    published = next(iter(torchvision.models.get_model_weights(name))).meta["_ops"]
    module = torchvision.models.get_model(name, weights=None).eval()
    macs = count_macs(module, np.zeros((1, 3, 224, 224), np.float32)).macs["fp32"]
    assert round(macs / 1e9, 3) == published


def test_counts_are_per_image_and_kernels_are_calls() -> None:
    model = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1)).eval()
    single, three = count_macs(model, IMAGES[0][:1]), count_macs(model, IMAGES[0])
    assert single == three
    assert three.kernels == {"aten.convolution.default": 2}


def test_a_product_of_quantized_tensors_is_computed_in_fp32() -> None:
    """PyTorch's `quantized::matmul` takes and gives INT8, and multiplies in FP32."""

    class Attention(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            rows = torch.quantize_per_tensor(images.flatten(2), 0.1, 0, torch.quint8)
            product: torch.Tensor = torch.ops.quantized.matmul(rows, rows.transpose(1, 2), 1.0, 0)
            return product.dequantize()

    batch = np.ones((2, 3, 4, 5), np.float32)
    assert count_macs(Attention(), batch).macs == {"fp32": 3 * 3 * 20}
