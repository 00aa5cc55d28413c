"""Fake quantization through torchao's PT2E: in the exported graph of the model, for no runtime in particular.

A batch norm is folded into the convolution before it while both train, with the running statistics:
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 3.2.2.
The graph is that of evaluation mode, in which batch norms and dropout are switched to training; what else
differs between the two modes, such as stochastic depth, does not take place.
Source: torchao, "PyTorch 2 Export Quantization-Aware Training",
https://docs.pytorch.org/ao/stable/tutorials_source/pt2e_quant_qat.html.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.nn.modules.batchnorm import _BatchNorm
from torchao.quantization.pt2e import FakeQuantize
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError, UnsupportedError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.techniques.neutral_quantizer import BATCH_NORM, TRANSPOSED, NeutralQuantizer
from quant_explorer.techniques.qat import FakeQuantized
from quant_explorer.tracing.capture import capture
from quant_explorer.tracing.reasons import QUANTIZE_ADVICE, explain_refusal

# Folding a batch norm only rounds differently; a graph that was folded wrongly is far off.
_TOLERANCE = 1e-3

_aten = torch.ops.aten
# Operators that compute something else in training, and the place of the argument that says so.
_MODES = {
    BATCH_NORM: 5,
    **dict.fromkeys((_aten.dropout.default, _aten.dropout_.default, _aten.alpha_dropout.default), 2),
    **dict.fromkeys((_aten.feature_dropout.default, _aten.feature_alpha_dropout.default), 2),
}
# The place of the number of groups among the arguments of a transposed convolution.
_GROUPS = 6
_RUNNING_MEAN, _RUNNING_VARIANCE, _MOMENTUM, _EPS = 3, 4, 6, 7


def prepare(model: nn.Module, spec: QuantSpec, calibration: Sequence[Batch]) -> FakeQuantized:
    """Return a copy of `model` with fake quantization, its activation ranges observed and held.

    Raises UnsupportedError when the model cannot be captured by torch.export or prepared by torchao.
    """
    for name, norm in model.named_modules():
        # The exported graph does not count batches.
        if isinstance(norm, _BatchNorm) and norm.momentum is None:
            raise UnsupportedError(f"the batch norm {name!r} averages over all batches (momentum=None)")
    program = capture(copy.deepcopy(model).eval(), calibration[0].shape[1:])
    graph = program.module(check_guards=False)
    assert isinstance(graph, fx.GraphModule)
    _refuse_groups(graph)
    settings = {str(node.args[_RUNNING_MEAN]): node.args[_MOMENTUM:] for node in _norms(graph)}
    failed = "torchao cannot prepare the exported graph for training"
    with explain_refusal(failed, QUANTIZE_ADVICE):
        prepared = prepare_qat_pt2e(graph, NeutralQuantizer(spec))
        _restore_settings(prepared, settings)
        # Without what torchao adds to it, which refuses train() and eval().
        module = SwitchedGraph(fx.GraphModule(prepared, prepared.graph)).eval()
        _observe_activations(module, model, calibration)
    return FakeQuantized(
        module,
        restore=partial(_restore_float, module, program),
        note="fine-tuned with the fake quantization of torchao's PT2E",
    )


def _refuse_groups(graph: fx.GraphModule) -> None:
    for norm in _norms(graph):
        layer = norm.args[0]
        if isinstance(layer, fx.Node) and layer.target in TRANSPOSED and _groups(layer) > 1:
            raise UnsupportedError(
                f"torchao folds no batch norm into a transposed convolution of several groups ({layer.name})"
            )


def _groups(layer: fx.Node) -> int:
    groups = layer.args[_GROUPS] if len(layer.args) > _GROUPS else 1
    assert isinstance(groups, int)
    return groups


class SwitchedGraph(nn.Module):
    """An exported graph whose batch norms and dropout follow train() and eval()."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        logits: torch.Tensor = self.graph(images)
        return logits

    def train(self, mode: bool = True) -> SwitchedGraph:
        """Switch the graph; torchao's own switch would give every batch norm PyTorch's default settings."""
        self.training = mode
        for node in self.graph.graph.nodes:
            # A batch norm without running statistics takes those of the batch in both modes.
            if node.target in _MODES and (node.target != BATCH_NORM or node.args[_RUNNING_MEAN] is not None):
                node.update_arg(_MODES[node.target], mode)
        self.graph.recompile()
        return self


def _norms(graph: fx.GraphModule) -> Iterator[fx.Node]:
    for node in graph.graph.nodes:
        if node.target == BATCH_NORM and node.args[_RUNNING_MEAN] is not None:
            yield node


def _restore_settings(graph: fx.GraphModule, settings: Mapping[str, tuple[fx.node.Argument, ...]]) -> None:
    """Give batch norms their momentum and eps back: where torchao folds, it writes PyTorch's defaults."""
    for node in _norms(graph):
        momentum, eps, *_ = settings[str(node.args[_RUNNING_MEAN])]
        node.update_arg(_MOMENTUM, momentum)
        node.update_arg(_EPS, eps)
        variance = node.args[_RUNNING_VARIANCE]
        assert isinstance(variance, fx.Node)
        for user in list(variance.users):
            if user.target == _aten.add.Tensor:
                user.update_arg(1, eps)
    graph.recompile()


def _observe_activations(module: SwitchedGraph, model: nn.Module, calibration: Sequence[Batch]) -> None:
    """Set every activation's range from the calibration images, then hold it while weights train.

    Raises UnsupportedError when the graph does not compute what `model` computes.
    """
    quantizers = [part for part in module.modules() if isinstance(part, FakeQuantize)]
    for quantizer in quantizers:
        quantizer.disable_fake_quant()
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(torch.from_numpy(calibration[0]))
        outputs = [module(torch.from_numpy(batch)) for batch in calibration]
    # Written so that NaN is not near.
    if not (outputs[0] - expected).abs().max() <= _TOLERANCE * expected.abs().max():
        raise UnsupportedError("folding batch norms for training changes what the exported graph computes")
    for quantizer in quantizers:
        quantizer.enable_fake_quant()
        if quantizer.dtype == torch.uint8:
            quantizer.disable_observer()


def _restore_float(module: SwitchedGraph, program: ExportedProgram, model: nn.Module) -> nn.Module:
    """Return a copy of `model` with what was trained; raises BuildError for a parameter that was lost."""
    trained = module.graph.state_dict()
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    for placeholder, name in program.graph_signature.inputs_to_parameters.items():
        if placeholder in used and name not in trained:
            raise BuildError(f"quantization-aware training lost the parameter {name!r} of the model")
    result = copy.deepcopy(model).eval()
    names = trained.keys() & result.state_dict().keys()
    result.load_state_dict({name: trained[name] for name in names}, strict=False)
    return result
