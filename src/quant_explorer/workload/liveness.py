"""Peak memory of activations by liveness: a tensor is needed from its producer to its last consumer.

The model is traced (torch.fx: Reed et al., MLSys 2022) and the graph is run once, so that views and
in-place operations are known by the storage they really share and not by their names.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_explorer.tracing.reasons import TRACING, explain_refusal
from quant_explorer.workload.tensors import tensors_in

if TYPE_CHECKING:
    from torch import fx, nn

# Elements by the address of the storage.
Storages = dict[int, int]


@dataclass(frozen=True)
class Peak:
    """The largest number of activation elements of one image needed at once, and the step that needs them."""

    elements: int
    node: str


def find_peak(model: nn.Module, input_shape: tuple[int, ...]) -> Peak:
    """Return the peak over the steps of the traced graph; `input_shape` is (channels, height, width).

    At each step its inputs, its outputs and whatever a later step reads are in memory, the image itself as
    long as it is read; parameters and buffers are not counted. What a layer allocates inside (im2col
    copies, attention scores of nn.MultiheadAttention) is not seen. Of equal peaks the first is named.
    The model is not touched. Raises UnsupportedError for a model that torch.fx cannot trace.
    """
    import torch
    from torch import fx

    traced = _trace(copy.deepcopy(model).eval())
    # Nothing is freed while it runs, so no two storages have the same address.
    interpreter = fx.Interpreter(traced, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(torch.zeros(1, *input_shape))
    storages = {node: _storages(interpreter.env[node]) for node in traced.graph.nodes}
    weights = {address for node in storages if node.op == "get_attr" for address in storages[node]}
    return _highest(storages, weights)


def _trace(model: nn.Module) -> fx.GraphModule:
    from torch import fx

    with explain_refusal(*TRACING):
        return fx.symbolic_trace(model)


def _storages(value: object) -> Storages:
    found: Storages = {}
    for tensor in tensors_in(value):
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
    return found


def _highest(storages: Mapping[fx.Node, Storages], not_counted: Set[int]) -> Peak:
    """Go through the steps in order: what is born is added, and what nobody reads any more is taken away."""
    elements: Storages = {}
    last_step: dict[int, int] = {}
    for step, (node, own) in enumerate(storages.items()):
        for held in (own, *(storages[source] for source in node.all_input_nodes)):
            last_step.update(dict.fromkeys(held.keys() - not_counted, step))
    ends: defaultdict[int, list[int]] = defaultdict(list)
    for address, step in last_step.items():
        ends[step].append(address)
    live, peak = 0, Peak(0, "")
    for step, (node, own) in enumerate(storages.items()):
        for address in own.keys() - not_counted - elements.keys():
            elements[address] = own[address]
            live += own[address]
        if live > peak.elements:
            # Names are the model's own where a step is a module.
            peak = Peak(live, str(node.target) if node.op == "call_module" else node.name)
        live -= sum(elements[address] for address in ends[step])
    return peak
