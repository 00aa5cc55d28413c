"""Masks of attention in an exported graph, which no INT8 scale is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import fx
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer, SharedQuantizationSpec

from quant_explorer.core.quantspec import MASKED
from quant_explorer.runtimes.torch_graph.sensitive import find_sensitive

if TYPE_CHECKING:
    from torchao.quantization.pt2e.observer import ObserverOrFakeQuantize
    from torchao.quantization.pt2e.quantizer.quantizer import EdgeOrNode

_ANNOTATION = "quantization_annotation"
_aten = torch.ops.aten
_MASKING = (
    *(_aten.add.Tensor, _aten.add_.Tensor, _aten.sub.Tensor, _aten.where.self, _aten.where.ScalarOther),
    *(_aten.where.ScalarSelf, _aten.masked_fill.Scalar, _aten.masked_fill_.Scalar, _aten.masked_fill.Tensor),
)
_MOVES = (
    *(_aten.view, _aten.reshape, _aten.flatten, _aten.squeeze, _aten.unsqueeze, _aten.expand),
    *(_aten.permute, _aten.transpose, _aten.clone, _aten.contiguous),
)


class SelectiveQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no type information
    """Another quantizer's annotations, without those of values that have a mask in them (1e4 and more).

    Nor does it quantize what serves divisions, logarithms and roots, layers whose weights are computed, and
    operators of which `keep_float` says so.
    """

    def __init__(self, quantizer: Quantizer, keep_float: Callable[[fx.Node], bool]) -> None:
        """Annotate as `quantizer` does."""
        self._quantizer, self._keep_float = quantizer, keep_float

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Do what the quantizer does."""
        transformed: fx.GraphModule = self._quantizer.transform_for_annotation(model)
        return transformed

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotate, and keep masked values and what adds the mask in float."""
        annotated: fx.GraphModule = self._quantizer.annotate(model)
        masked = find_masked(model)
        excluded = masked | find_sensitive(model)
        for node in model.graph.nodes:
            annotation = node.meta.get(_ANNOTATION)
            if annotation is None:
                continue
            if node in excluded or self._keep_float(node) or _shares(annotation, excluded):
                excluded.add(node)
                node.meta[_ANNOTATION] = QuantizationAnnotation(_annotated=True)
                continue
            for source in masked.intersection(annotation.input_qspec_map):
                del annotation.input_qspec_map[source]
        return annotated

    def validate(self, model: fx.GraphModule) -> None:
        """Do what the quantizer does."""
        self._quantizer.validate(model)

    def prepare_obs_or_fq_callback(
        self, model: fx.GraphModule, edge_or_node_to_obs_or_fq: dict[EdgeOrNode, ObserverOrFakeQuantize]
    ) -> None:
        """Do what the quantizer does."""
        self._quantizer.prepare_obs_or_fq_callback(model, edge_or_node_to_obs_or_fq)


def find_masked(graph: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes that add a mask or put it in place of values, and those that hand the result on."""
    masked: set[fx.Node] = set()
    for node in graph.graph.nodes:
        adds = node.target in _MASKING and any(_is_mask(graph, operand) for operand in node.args)
        if adds or (_passes_on(node) and not masked.isdisjoint(node.all_input_nodes)):
            masked.add(node)
    return masked


def _shares(annotation: QuantizationAnnotation, excluded: set[fx.Node]) -> bool:
    """Say whether an operator takes the grid of one that has none any more."""
    specs = [annotation.output_qspec, *annotation.input_qspec_map.values()]
    shared = [spec.edge_or_node for spec in specs if isinstance(spec, SharedQuantizationSpec)]
    # An edge is what reads and where from.
    return any((place[1] if isinstance(place, tuple) else place) in excluded for place in shared)


def _passes_on(node: fx.Node) -> bool:
    """Say whether values of an operand stay what they are, other summands aside."""
    annotation = node.meta.get(_ANNOTATION)
    shared = annotation is not None and isinstance(annotation.output_qspec, SharedQuantizationSpec)
    return shared or node.target in _MASKING or getattr(node.target, "overloadpacket", None) in _MOVES


def _is_mask(graph: fx.GraphModule, operand: object) -> bool:
    if isinstance(operand, int | float):
        return abs(operand) >= MASKED
    if not isinstance(operand, fx.Node) or operand.op == "placeholder":
        return False
    values = dict(graph.named_buffers()).get(str(operand.target)) if operand.op == "get_attr" else None
    return values is not None and values.is_floating_point() and bool(values.abs().max() >= MASKED)
