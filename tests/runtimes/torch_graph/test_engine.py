"""What PyTorch's quantized engines compute exactly, and what is chosen where they do not."""

import pytest
import torch

from quant_explorer.core.host.architecture import is_x86
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes.eager.runtime import select_engine
from quant_explorer.runtimes.torch_graph import engine as torch_engine

ENGINE = select_engine("")
STATIC = QuantSpec("int8", "static")
PORTABLE = QuantSpec("int8", "static", target="portable")
needs_x86 = pytest.mark.skipif(
    "x86" not in torch.backends.quantized.supported_engines, reason="PyTorch has no engine x86 here"
)
needs_qnnpack = pytest.mark.skipif(
    "qnnpack" not in torch.backends.quantized.supported_engines, reason="PyTorch has no engine qnnpack here"
)


@pytest.mark.parametrize(
    ("probe", "named"), [("_extreme_convolution", "convolution"), ("_extreme_linear", "linear")]
)
def test_an_overflow_is_found_and_explained(probe: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """32767 is where 16 bits end: what kernels without VNNI give instead of two products of 255 x 127."""
    monkeypatch.setattr(torch_engine, probe, lambda *_: 200.0 * 32767 / (2 * 255 * 127))
    bits, reason = torch_engine.activation_bits.__wrapped__(ENGINE)
    assert bits == 7
    assert reason is not None
    assert reason.startswith(f"activations have 7 bits: on this CPU engine {ENGINE} overflows with 8 bits")
    assert named in reason


def test_the_probe_itself_is_exact() -> None:
    """Where nothing overflows it gives the exact result, so that only an overflow can be the reason."""
    outputs = [
        torch_engine._extreme_convolution(64, 64, 1),
        torch_engine._extreme_convolution(128, 128, 128),
        torch_engine._extreme_linear(),
    ]
    exact = [abs(output - 200.0) <= 1.0 for output in outputs]
    bits, _ = torch_engine.activation_bits.__wrapped__(torch.backends.quantized.engine)
    assert all(exact) == (bits == 8)


@needs_qnnpack
def test_qnnpack_never_overflows_and_needs_nothing() -> None:
    assert torch_engine.activation_bits("qnnpack") == (8, None)
    assert torch_engine.choose_bits(PORTABLE, "qnnpack") == (8, None)
    assert torch_engine.needed_features("qnnpack") == ()


@needs_x86
def test_what_is_exact_by_vnni_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_x86()
    for found, bits, needed in (((8, None), 8, ("VNNI",)), ((7, "because"), 7, ())):
        monkeypatch.setattr(torch_engine, "activation_bits", lambda engine, found=found: found)
        assert torch_engine.choose_bits(STATIC, "x86") == found
        assert torch_engine.needed_features("x86", bits) == needed


@needs_x86
def test_a_portable_target_has_seven_bits_on_every_cpu() -> None:
    bits, reason = torch_engine.choose_bits(PORTABLE, "x86")
    assert bits == 7
    assert reason is not None
    assert "portable" in reason
    assert torch_engine.needed_features("x86", bits) == ()


def test_bits_are_those_of_the_narrowest_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a module are packed for PyTorch's default engine."""
    found = {"first": (8, None), "second": (7, "because")}
    monkeypatch.setattr(torch_engine, "activation_bits", found.__getitem__)
    assert torch_engine.choose_bits(STATIC, "first", "second") == (7, "because")
    assert torch_engine.choose_bits(STATIC, "first", "first") == (8, None)


@pytest.mark.parametrize(
    "engine", [name for name in torch.backends.quantized.supported_engines if name != "none"]
)
def test_transposed_convolutions_are_right_or_not_quantized(engine: str) -> None:
    """The probe takes whole numbers and kernels of 2; here are others, within one step of the output."""
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for inputs, outputs, size in ((8, 8, 2), (16, 8, 3), (8, 16, 2), (3, 5, 2)):
        weight = torch.randn(inputs, outputs, size, size, generator=generator) / 20
        images = torch.rand(1, inputs, 6, 6, generator=generator)
        filters = torch.quantize_per_tensor(weight, 0.002, 0, torch.qint8)
        quantized = torch.quantize_per_tensor(images, 1 / 127, 0, torch.quint8)
        expected = torch.nn.functional.conv_transpose2d(
            quantized.dequantize(), filters.dequantize(), stride=2
        )
        with torch_engine.quantized_engine(engine):
            packed = torch.ops.quantized.conv_transpose2d_prepack(
                filters, None, [2, 2], [0, 0], [0, 0], [1, 1], 1
            )
            found = torch.ops.quantized.conv_transpose2d(quantized, packed, 0.02, 128).dequantize()
        wrong += bool((found - expected).abs().max() > 0.02)
    assert torch_engine.computes_transposed(engine) == (wrong == 0)
    assert (torch_engine.explain_transposed(STATIC, engine) is None) == (wrong == 0)


def test_all_engines_that_weights_may_be_packed_for_must_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "computes_transposed", lambda engine: engine == "qnnpack")
    assert torch_engine.explain_transposed(STATIC, "qnnpack") is None
    assert "engine x86" in (torch_engine.explain_transposed(STATIC, "qnnpack", "x86") or "")


def test_engine_is_restored_after_an_error() -> None:
    before = torch.backends.quantized.engine
    seen: list[str] = []

    def fail() -> None:
        with torch_engine.quantized_engine("qnnpack"):
            seen.append(torch.backends.quantized.engine)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == ["qnnpack"]
    assert torch.backends.quantized.engine == before
