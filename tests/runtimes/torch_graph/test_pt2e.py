"""Export and PT2E quantization, without a vendor's runtime."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.testing.reference import differences, float_logits
from quant_explorer.testing.toys import TOY_SHAPE, toy_batches, toy_model

pytest.importorskip("torchao")
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

from quant_explorer.runtimes.torch_graph import pt2e


def quantizer() -> x86.X86InductorQuantizer:
    return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())


def test_a_module_is_exported_once() -> None:
    model = toy_model()
    program = pt2e.export(model, TOY_SHAPE)
    assert pt2e.export(model, TOY_SHAPE) is program
    assert pt2e.export(copy.deepcopy(model), TOY_SHAPE) is not program


def test_an_export_does_not_keep_its_module_alive() -> None:
    model = toy_model()
    program = pt2e.export(model, TOY_SHAPE)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert program is not None


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_batch_size(size: int) -> None:
    model, batch = toy_model(), toy_batches(size=size)[0]
    with torch.no_grad():
        logits = pt2e.graph_of(pt2e.export(model, TOY_SHAPE))(torch.from_numpy(batch))
    np.testing.assert_array_equal(logits.numpy(), float_logits(model, batch))


def test_quantizing_leaves_program_and_model_untouched() -> None:
    model, batches = toy_model(), toy_batches()
    before = copy.deepcopy(model)
    program = pt2e.export(model, TOY_SHAPE)
    images = torch.from_numpy(batches[0])
    pt2e.quantize(program, batches, quantizer())
    assert differences(before, model) == []
    with torch.no_grad():
        np.testing.assert_array_equal(
            pt2e.graph_of(program)(images).numpy(), float_logits(before, batches[0])
        )


class Scaled(nn.Module):
    """A number for each token, as in an RMS norm: quantizers compare its size with 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2)
        scaled = tokens * tokens.pow(2).mean(-1, keepdim=True).rsqrt()
        outputs: torch.Tensor = self.layer(scaled)
        return outputs.flatten(1)


def test_quantizing_leaves_the_number_of_images_free() -> None:
    model, batches = Scaled().eval(), toy_batches((3, 4, 4), size=5)
    program = pt2e.export(model, (3, 4, 4))
    graph = pt2e.quantize(program, batches, quantizer())
    for size in (2, 5):
        images = torch.from_numpy(batches[0][:size])
        assert graph(images).shape == pt2e.graph_of(program)(images).shape == (size, 48)


def test_observers_see_every_batch() -> None:
    """The largest value is in the last batch; without it, the input's range would be a tenth."""
    small, large = toy_batches(count=2)
    images = torch.from_numpy(large * 10)
    graph = pt2e.quantize(pt2e.export(toy_model(), TOY_SHAPE), (small, large * 10), quantizer())
    quantize = next(node for node in graph.graph.nodes if "quantize_per_tensor" in str(node.target))
    covered = 255 * quantize.args[1]
    assert covered > 0.8 * float(images.max() - images.min())


class Branching(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


def test_control_flow_is_a_reason() -> None:
    with pytest.raises(UnsupportedError, match=r"captured by torch\.export.*out of forward\(\)"):
        pt2e.export(Branching().eval(), TOY_SHAPE)


class CalledTwice(nn.Module):
    """One convolution under two batch norms: each folds into the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        for norm in (self.first, self.second):
            nn.init.uniform_(norm.weight, 2.0, 3.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        once = self.first(self.convolution(images))
        twice: torch.Tensor = self.second(self.convolution(once))
        return twice.flatten(1)


class Residual(nn.Module):
    """As in ResNet: one ReLU after each of two convolutions, the second time after an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.relu(self.second(self.relu(self.first(images))) + images)
        return result.flatten(1)


@pytest.mark.parametrize(("float_layer", "quantized"), [(None, 2), ("first", 1), ("relu", 2)])
def test_a_layer_that_is_called_twice(float_layer: str | None, quantized: int) -> None:
    chosen = quantizer()
    if float_layer:
        chosen.set_module_name_qconfig(float_layer, None)
    graph = pt2e.quantize(pt2e.export(Residual().eval(), TOY_SHAPE), toy_batches(), chosen)
    weights = [node for node in graph.graph.nodes if "dequantize_per_channel" in str(node.target)]
    assert len(weights) == quantized


def test_folding_that_changes_the_outputs_is_a_reason() -> None:
    with pytest.raises(UnsupportedError, match="folding batch norms"):
        pt2e.quantize(pt2e.export(CalledTwice().eval(), TOY_SHAPE), toy_batches(), quantizer())
