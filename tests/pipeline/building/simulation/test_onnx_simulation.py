"""An ONNX file has the simulation of the module that it was exported from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import FidelityError, UnsupportedError
from quant_explorer.core.quantspec import Granularity, Grid, Precision, QuantSpec
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.models.onnx_graph import read_onnx
from quant_explorer.pipeline.building.bisection import quantized_layers
from quant_explorer.pipeline.building.expectation import Expectation
from quant_explorer.pipeline.building.simulation import Simulation
from quant_explorer.pipeline.building.simulation.onnx_simulation import OnnxSimulation
from quant_explorer.runtimes.onnx_graph.export import export_onnx
from quant_explorer.testing.reference import ROUNDING, LinearLayer
from quant_explorer.testing.toys import settle_batch_norms, toy_batches, toy_linear_model
from quant_explorer.testing.zoo import ZOO

STATIC = QuantSpec("int8", "static", "per_channel", "minmax")
LINEAR_IMAGES = toy_batches((3, 4, 4), count=1, size=64)[0]


def exported(model: nn.Module, images: Batch, folder: Path) -> nn.Module:
    """Read the file that the module is exported to."""
    path = folder / "model.onnx"
    path.write_bytes(export_onnx(model, images))
    return read_onnx(path).build((images.shape[1], images.shape[2], images.shape[3]))


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize(
    "name", ["convolution", "inverted_residual", "scaled_dot_product", "transposed", "hardswish"]
)
def test_static_int8_is_that_of_the_module(name: str, granularity: Granularity, tmp_path: Path) -> None:
    specimen = ZOO[name]
    model, images = specimen.model(), specimen.images(16, seed=3)
    spec = replace(STATIC, granularity=granularity)
    expected = Simulation(Candidate(model, spec), (images,)).run(images, Grid(127))[0]
    program = exported(model, images, tmp_path)
    (found,) = OnnxSimulation(Candidate(program, spec), (images,)).run(images, Grid(127))
    exact = program(torch.from_numpy(images)).numpy()
    own, theirs = sqnr_db(found, exact), sqnr_db(expected, exact)
    assert own is not None
    assert theirs is not None
    assert own == pytest.approx(theirs, abs=4.0)
    assert own < 50


@pytest.mark.parametrize("grid", [Grid(127), Grid(64)], ids=str)
def test_a_dynamic_linear_layer_is_that_of_the_definition(grid: Grid, tmp_path: Path) -> None:
    model = toy_linear_model()
    spec = QuantSpec("int8", "dynamic", "per_channel")
    expected = LinearLayer.of(model, LINEAR_IMAGES, "per_channel", grid.weight_levels, 255).quantized_sums()
    program = exported(model, LINEAR_IMAGES, tmp_path)
    (found,) = OnnxSimulation(Candidate(program, spec), (LINEAR_IMAGES,)).run(LINEAR_IMAGES, grid)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_that_of_the_module(precision: Precision, tmp_path: Path) -> None:
    model, spec = toy_linear_model(), QuantSpec(precision)
    expected = Simulation(Candidate(model, spec), (LINEAR_IMAGES,)).run(LINEAR_IMAGES, Grid())[0]
    program = exported(model, LINEAR_IMAGES, tmp_path)
    (found,) = OnnxSimulation(Candidate(program, spec), (LINEAR_IMAGES,)).run(LINEAR_IMAGES, Grid())
    assert np.mean(found != expected) < 0.01


def test_layers_in_float_and_masks_are_not_rounded(tmp_path: Path) -> None:
    specimen = ZOO["attention_mask_lowest"]
    model, images = specimen.model(), specimen.images(8, seed=3)
    program = exported(model, images, tmp_path)
    layers = tuple(quantized_layers(Candidate(program, STATIC)))
    assert layers
    exact = program(torch.from_numpy(images)).numpy()
    rounded, kept = (
        sqnr_db(OnnxSimulation(Candidate(program, spec), (images,)).run(images, Grid())[0], exact)
        for spec in (STATIC, replace(STATIC, float_layers=layers))
    )
    assert rounded is not None
    assert kept is not None
    # Masked scores that were rounded would leave noise alone.
    assert 15 < rounded < kept


def test_what_overflows_is_said(tmp_path: Path) -> None:
    model = toy_linear_model()
    with torch.no_grad():
        next(model.parameters()).mul_(1e6)
    program = exported(model, LINEAR_IMAGES, tmp_path)
    simulation = OnnxSimulation(Candidate(program, QuantSpec("fp16")), (LINEAR_IMAGES,))
    with pytest.raises(UnsupportedError, match="in fp16 the model gives no numbers"):
        simulation.run(LINEAR_IMAGES, Grid())


def test_files_that_lost_a_bias_fail_the_check(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)
        )
        settle_batch_norms(model)
    program = exported(model.eval(), LINEAR_IMAGES, tmp_path)
    expectation = Expectation(Candidate(program, STATIC), (LINEAR_IMAGES,))
    head = model[4]
    assert isinstance(head, nn.Linear)
    right = OnnxSimulation(Candidate(program, STATIC), (LINEAR_IMAGES,))
    expectation.check(lambda images: right.run(images, Grid(127))[0], Grid(127))
    bias = head.bias.detach().numpy()
    with pytest.raises(FidelityError, match="a simulation of the same quantization has"):
        expectation.check(lambda images: right.run(images, Grid(127))[0] - bias, Grid(127))
