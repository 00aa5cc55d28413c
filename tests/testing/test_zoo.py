"""Each specimen of the zoo once, on one runtime in one configuration; `make zoo` has them all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.zoo import ZOO
from quant_explorer.testing.zoo.cells import OPTIONS, Openers, SpecimenSubject, Verdict, judge_specimen

FP32, INT8 = "fp32", "static_int8_per_channel"
# One after the other gets what is not chosen below: each lowers in about a second.
_QUICK = ("eager", "torchscript", "onnxruntime", "openvino")
_CHOSEN = {
    "add_alpha": ("inductor", INT8),
    "one_input_channel": ("inductor", INT8),
    "squeeze_excitation": ("inductor", INT8),
    "small_weights": ("executorch", INT8),
    "inverted_residual": ("executorch", INT8),
    "residual_relu": ("executorch", INT8),
    "hardswish": ("executorch", INT8),
    "group_norm": ("executorch", FP32),
    "add_alpha_1.5": ("eager", INT8),
    "add_alpha_relu": ("torchscript", INT8),
    "adaptive_pool": ("torchscript", FP32),
    "attention": ("eager", FP32),
    "attention_mask_lowest": ("torchscript", INT8),
    "channels_last": ("eager", FP32),
    "chain_in_place": ("torchscript", INT8),
    "cosine_classifier": ("eager", INT8),
    "einsum_attention": ("openvino", INT8),
    "interpolate_bicubic": ("eager", INT8),
    "lstm": ("eager", FP32),
    "scaled_concatenation": ("eager", INT8),
    "class_token": ("onnxruntime", FP32),
    "convolution_head": ("eager", FP32),
    "convolution_3d": ("eager", INT8),
    "functional_convolution": ("torchscript", INT8),
    "gelu_tanh": ("torchscript", FP32),
    "instance_norm_statistics": ("torchscript", INT8),
    "layer_norm": ("eager", INT8),
    "mean_by_shape": ("eager", FP32),
    "non_square": ("torchscript", INT8),
    "multihead_attention": ("torchscript", FP32),
    "padding_same": ("eager", INT8),
    "padding_same_even": ("torchscript", INT8),
    "prelu": ("torchscript", INT8),
    "prelu_per_channel": ("eager", INT8),
    "scalars_from_shape": ("eager", INT8),
    "shared_linear": ("torchscript", INT8),
    "shared_norms": ("eager", INT8),
    "stochastic_depth": ("eager", INT8),
    "tied_weights": ("eager", INT8),
    "transformer_encoder": ("eager", FP32),
    "transposed": ("onnxruntime", INT8),
    "transposed_grouped": ("onnxruntime", INT8),
    "bilinear_head": ("onnxruntime", FP32),
    "channels_then_places": ("eager", INT8),
    "gate_joined": ("eager", INT8),
    "gate_split": ("eager", INT8),
    "generalized_mean": ("eager", INT8),
    "generated_filters": ("eager", INT8),
    "gru_both_directions": ("eager", FP32),
    "mish_written_out": ("eager", INT8),
    "mixed_weights": ("eager", FP32),
    "scaled_up": ("eager", INT8),
    "softplus_tanh": ("eager", INT8),
    "attention_without_heads": ("openvino", INT8),
    "batch_norm_tokens": ("eager", INT8),
    "clamp_tensors": ("eager", INT8),
    "coordinates": ("eager", INT8),
    "einsum_shared": ("onnxruntime", INT8),
    "learned_queries": ("eager", FP32),
    "sorted_tokens": ("eager", INT8),
    "subclassed_layer": ("torchscript", INT8),
    "token_merging": ("onnxruntime", INT8),
    "soft_pool": ("eager", INT8),
    "attentive_statistics": ("torchscript", INT8),
    "spatial_transformer": ("onnxruntime", INT8),
    "fourier_mixing": ("onnxruntime", INT8),
    "view_by_size": ("torchscript", INT8),
    "weight_norm": ("eager", FP32),
}
# What a runtime has no INT8 kernel for, with a part of the reason.
_REFUSED = {
    "transposed": "ConvTranspose of layer '1.0' in float",
    "transposed_grouped": "ConvTranspose of layer '1.0' in float",
}


def _cells() -> Iterator[object]:
    quick = itertools.cycle(_QUICK)
    for name in ZOO:
        runtime, config = _CHOSEN.get(name) or (next(quick), INT8)
        yield pytest.param(name, runtime, config, id=f"{name}-{runtime}-{config}")


@pytest.fixture(scope="module")
def openers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Openers]]:
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Openers(kind(**OPTIONS.get(name, {})), logs / f"{name}.log"))
            for name, kind in RUNTIMES.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runtime", "config"), _cells())
def test_lowered_right(name: str, runtime: str, config: str, openers: dict[str, Openers]) -> None:
    opened = openers[runtime]
    reason = opened.runtime.unavailable()
    if reason is not None:
        pytest.skip(reason)
    cell = judge_specimen(SpecimenSubject(ZOO[name]), config, opened)
    assert cell.verdict == (Verdict.REFUSED if name in _REFUSED else Verdict.RIGHT), cell.line()
    assert _REFUSED.get(name, "") in cell.reason


def test_every_runtime_is_covered_and_nothing_is_marked_that_is_not_there() -> None:
    assert {runtime for runtime, _ in _CHOSEN.values()} | set(_QUICK) == set(RUNTIMES)
    assert _CHOSEN.keys() <= set(ZOO)
    assert _REFUSED.keys() <= set(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_specimens_are_seeded_and_their_logits_depend_on_the_image(name: str) -> None:
    specimen = ZOO[name]
    images = torch.from_numpy(specimen.images(16))
    before = torch.get_rng_state()
    with torch.no_grad():
        first, second = specimen.model()(images), specimen.model()(images)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)
    assert first.isfinite().all()
    # Biases alone would be the same for every image, and hide what becomes of the rest.
    assert (first - first.mean(0)).norm() > 0.1 * first.norm()


def test_images_are_seeded_and_have_a_bright_and_a_dark_one() -> None:
    images = ZOO["convolution"].images(8, seed=1)
    np.testing.assert_array_equal(images, ZOO["convolution"].images(8, seed=1))
    means = images.mean((1, 2, 3))
    assert means.argmax() == 0
    assert means.argmin() == 1
