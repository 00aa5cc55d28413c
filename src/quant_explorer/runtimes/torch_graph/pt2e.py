"""PyTorch 2 export and its quantization (PT2E), as `inductor` and `executorch` lower with them.

A runtime brings its own quantizer; this module knows none.
Source: torchao, "PyTorch 2 Export Post Training Quantization",
https://docs.pytorch.org/ao/stable/tutorials_source/pt2e_quant_ptq.html.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.runtimes.torch_graph.rewriting import rewrite
from quant_explorer.tracing.capture import capture
from quant_explorer.tracing.observers.clipping import narrow_observers
from quant_explorer.tracing.reasons import QUANTIZE_ADVICE, explain_refusal

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import QuantizationConfig, Quantizer

# Folding a batch norm only rounds differently; a graph that was folded wrongly is far off.
FOLDING_TOLERANCE = 1e-3

_exports: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], ExportedProgram]] = WeakKeyDictionary()


def export(model: nn.Module, shape: Sequence[int]) -> ExportedProgram:
    """Export `model`, in evaluation mode, for any number of images (n, *shape).

    A second call for the same module returns the first one's program, whose weights are the module's own.
    Raises UnsupportedError when the model cannot be captured as one graph.
    """
    programs = _exports.setdefault(model, {})
    key = tuple(shape)
    if key not in programs:
        with torch.no_grad():
            programs[key] = capture(model, key)
    return programs[key]


def quantize(
    program: ExportedProgram,
    calibration: Sequence[Batch],
    quantizer: Quantizer,
    keep_float: Callable[[torch.fx.Node], bool] = lambda _: False,
) -> torch.fx.GraphModule:
    """Fold batch norms, observe `calibration` where `quantizer` asks for it, and insert quantization.

    `program` is left untouched; operators of which `keep_float` says so stay in float. Raises
    UnsupportedError when PT2E cannot prepare the graph, or when folding changes what it computes.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from quant_explorer.runtimes.torch_graph.masks import SelectiveQuantizer

    refused = "PyTorch cannot quantize the exported graph"
    with torch.no_grad(), explain_refusal(refused, QUANTIZE_ADVICE, IndexError, KeyError):
        graph = graph_of(program)
        rewrite(graph)
        fix_sizes(graph, calibration[0])
        _tell_calls_apart(graph)
        prepared = prepare_pt2e(graph, SelectiveQuantizer(quantizer, keep_float))
        narrow_observers(prepared)
        _check_folding(prepared, program, calibration[0])
        for batch in calibration[1:]:
            prepared(torch.from_numpy(batch))
        converted: torch.fx.GraphModule = convert_pt2e(prepared)
    return converted


def keep_small_weights(config: QuantizationConfig) -> QuantizationConfig:
    """Return `config` whose weights have scales down to the epsilon of float32.

    Vendors set 2^-12, so that a filter whose largest weight is below 0.03 loses bits: a linear layer of
    +-1/3072 has one step left, and 12 dB (measured). PyTorch's own observers have float32's.
    """
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver

    whole = config.weight.qscheme == torch.per_tensor_symmetric
    observer = (MinMaxObserver if whole else PerChannelMinMaxObserver).with_args(
        eps=torch.finfo(torch.float32).eps
    )
    weight = dataclasses.replace(config.weight, observer_or_fake_quant_ctr=observer)
    return dataclasses.replace(config, weight=weight)


def graph_of(program: ExportedProgram) -> torch.fx.GraphModule:
    """Return a new module of the exported graph, without checks of its input's shape."""
    graph = program.module(check_guards=False)
    assert isinstance(graph, torch.fx.GraphModule)
    return graph


def layer_of(node: torch.fx.Node) -> str:
    """Return the qualified name of the innermost layer that the node was called in."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def fix_sizes(graph: torch.fx.GraphModule, batch: Batch) -> None:
    """Note the sizes for this batch on the nodes, in place of those for any number of images.

    A quantizer that compares sizes would fix the number of images, in the exported program as well: its
    graphs share the symbols. The quantized graph is exported again.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    FakeTensorProp(graph, mode).propagate(torch.from_numpy(batch))


def _tell_calls_apart(graph: torch.fx.GraphModule) -> None:
    """Name each further call of a layer, which quantizers take for one operator with several outputs."""
    for node in graph.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if not stack:
            continue
        # torch.export numbers calls in the key, but quantizers look at the name; the layer's own stays.
        key, (name, kind) = list(stack.items())[-1]
        _, numbered, number = key.rpartition("@")
        if numbered:
            node.meta["nn_module_stack"] = {**stack, f"{key} again": (f"{name}@{number}", kind)}


def _check_folding(prepared: torch.fx.GraphModule, program: ExportedProgram, batch: Batch) -> None:
    # Observers pass their input on, so a prepared graph still computes in float; and this calibrates.
    images = torch.from_numpy(batch)
    expected, folded = graph_of(program)(images), prepared(images)
    # Written so that NaN is not near.
    if not (folded - expected).abs().max() <= FOLDING_TOLERANCE * expected.abs().max():
        raise UnsupportedError(
            "folding batch norms into convolutions changes what the exported graph computes; give each call "
            "a layer with weights of its own"
        )
