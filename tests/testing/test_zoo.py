"""Each specimen of the zoo once, on one runtime in one configuration; `make zoo` has them all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from quant_explorer.core.quantspec import Granularity, QuantSpec
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.reference import LinearLayer
from quant_explorer.testing.toys import toy_linear_model
from quant_explorer.testing.zoo import ZOO
from quant_explorer.testing.zoo.cells import OPTIONS, Openers, Subject, Verdict, examine, is_dump
from quant_explorer.testing.zoo.simulation import simulate

# Runtimes that lower in seconds have one cell each; those that take more, only what is special to them.
_QUICK = ("eager", "torchscript", "onnxruntime", "openvino")
_SLOW: dict[str, str] = {}
# What is wrong today. Mending it is an error here until the line is gone.
_WRONG: dict[tuple[str, str], str] = {}


def _cells() -> Iterator[object]:
    quick = itertools.cycle(_QUICK)
    for name in ZOO:
        runtime = _SLOW.get(name) or next(quick)
        wrong = _WRONG.get((name, runtime))
        marks = [pytest.mark.xfail(strict=True, reason=wrong)] if wrong else []
        yield pytest.param(name, runtime, id=f"{name}-{runtime}", marks=marks)


@pytest.fixture(scope="module")
def openers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Openers]]:
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Openers(kind(**OPTIONS.get(name, {})), logs / f"{name}.log"))
            for name, kind in RUNTIMES.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runtime"), _cells())
def test_lowered_right_or_refused_in_a_sentence(name: str, runtime: str, openers: dict[str, Openers]) -> None:
    opened = openers[runtime]
    reason = opened.runtime.unavailable()
    if reason is not None:
        pytest.skip(reason)
    cell = examine(Subject(ZOO[name]), "static_int8_per_channel", opened)
    assert cell.verdict in (Verdict.RIGHT, Verdict.REFUSED), cell.line()


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


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_the_simulation_of_one_layer_is_its_formula(granularity: Granularity) -> None:
    model = toy_linear_model()
    images = np.random.default_rng(0).standard_normal((64, 3, 4, 4), dtype=np.float32)
    layer = LinearLayer.of(model, images, granularity, 127, 127)
    simulated = simulate(model, QuantSpec("int8", "static", granularity), (images,), images)
    by_formula = layer.output.round_trip(layer.quantized_sums())
    assert np.abs(simulated - by_formula).max() <= 1.01 * layer.output.scale
    assert (np.abs(simulated - by_formula) > 0.01 * layer.output.scale).mean() < 0.05


def test_the_simulation_leaves_masks_and_the_model_alone() -> None:
    specimen = ZOO["attention_mask_lowest"]
    model, images = specimen.model(), specimen.images(8)
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    simulated = simulate(model, QuantSpec("int8", "static"), (images,), images)
    found = sqnr_db(simulated, expected)
    assert found is not None
    assert 15 < found < 60
    with torch.no_grad():
        np.testing.assert_array_equal(model(torch.from_numpy(images)).numpy(), expected)


@pytest.mark.parametrize(
    ("reason", "dump"),
    [
        ("XNNPACK has no BF16 convolutions; ask for fp16 or int8", False),
        ("the model cannot be exported (StopIteration: )\nTraceback", True),
        ("quantized::linear (/src/ATen/native/quantized/cpu/qlinear.cpp:12)", True),
        ("KeyError: 'add_1'", True),
    ],
)
def test_a_librarys_own_words_are_no_reason(reason: str, dump: bool) -> None:
    assert is_dump(reason) == dump
