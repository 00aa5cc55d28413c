"""Counts of an exported file against those of the module that it was exported from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quant_explorer.models.onnx_graph import read_onnx
from quant_explorer.runtimes.onnx_graph.export import export_onnx
from quant_explorer.tracing.onnx_program import OnnxProgram
from quant_explorer.workload.layers import count_layers
from quant_explorer.workload.model_cost import analyze_model, count_parameters

SHAPE = (3, 16, 12)


class Net(nn.Module):
    """Layers of every kind that multiplies, one of them called twice, and products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2)
        self.down = nn.Conv2d(4, 6, 4, stride=4)
        self.mix = nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(72, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.down(self.up(self.depthwise(self.stem(images)).relu()).relu())
        tokens = self.mix(self.mix(features.flatten(2).transpose(1, 2)).relu())
        scores = (tokens @ tokens.transpose(1, 2)).softmax(-1)
        mixed = torch.einsum("bij,bjc->bic", scores, tokens)
        found: Tensor = self.head(mixed.flatten(1))
        return found


def exported(model: nn.Module, path: Path) -> OnnxProgram:
    path.write_bytes(export_onnx(model.eval(), np.zeros((2, *SHAPE), np.float32)))
    module = read_onnx(path).build(SHAPE)
    assert isinstance(module, OnnxProgram)
    return module


def test_layers_count_as_those_of_the_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    program = exported(model, tmp_path / "model.onnx")
    found = {layer.name: layer for layer in analyze_model(program, SHAPE).layers}
    expected = {layer.name: layer for layer in count_layers(model, SHAPE)}
    assert sum(layer.macs for layer in found.values()) == sum(layer.macs for layer in expected.values())
    for name in ("stem", "depthwise", "up", "down", "head"):
        both = found[name], expected[name]
        assert both[0].macs == both[1].macs, name
        assert both[0].parameters == both[1].parameters, name
        assert (both[0].input_shape, both[0].output_shape) == (both[1].input_shape, both[1].output_shape)
        assert both[0].input_elements == both[1].input_elements, name
    assert set(program.convolutions) == {"stem", "depthwise", "up", "down"}
    assert count_parameters(program) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("state_alone", [False, True])
def test_a_recurrent_layer_counts_each_step(tmp_path: Path, state_alone: bool) -> None:
    """Also where its outputs are not read, but its last state."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.LSTM(36, 7, batch_first=True, bidirectional=True)
            self.head = nn.Linear(14, 5)

        def forward(self, images: Tensor) -> Tensor:
            outputs, (state, _) = self.rows(images.permute(0, 2, 1, 3).flatten(2))
            read = state.transpose(0, 1).flatten(1) if state_alone else outputs[:, -1]
            found: Tensor = self.head(read)
            return found

    cost = analyze_model(exported(Rows(), tmp_path / "model.onnx"), SHAPE)
    recurrent = next(layer for layer in cost.layers if layer.kind == "LSTM")
    assert recurrent.macs == 2 * 16 * 4 * 7 * (36 + 7)
