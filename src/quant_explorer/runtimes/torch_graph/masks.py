"""Masks of attention in an exported graph, which no INT8 scale is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer

from quant_explorer.core.quantspec import MASKED

if TYPE_CHECKING:
    from torchao.quantization.pt2e.observer import ObserverOrFakeQuantize
    from torchao.quantization.pt2e.quantizer.quantizer import EdgeOrNode

_ANNOTATION = "quantization_annotation"
_aten = torch.ops.aten
_MASKING = (
    *(_aten.add.Tensor, _aten.add_.Tensor, _aten.sub.Tensor, _aten.where.self, _aten.where.ScalarOther),
    *(_aten.where.ScalarSelf, _aten.masked_fill.Scalar, _aten.masked_fill_.Scalar, _aten.masked_fill.Tensor),
)
# What hands masked values on.
_PASSING = (*_MASKING, _aten.view.default, _aten.reshape.default, _aten.clone.default, _aten.unsqueeze.default)


class UnmaskedQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no type information
    """Another quantizer's annotations, without those of values that have a mask in them (1e4 and more)."""

    def __init__(self, quantizer: Quantizer) -> None:
        """Annotate as `quantizer` does."""
        self._quantizer = quantizer
        self.masked: tuple[str, ...] = ()

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Do what the quantizer does."""
        return self._quantizer.transform_for_annotation(model)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotate, and keep masked values and what adds the mask in float."""
        annotated = self._quantizer.annotate(model)
        masked = find_masked(model)
        for node in model.graph.nodes:
            annotation = node.meta.get(_ANNOTATION)
            if node in masked and annotation is not None:
                node.meta[_ANNOTATION] = QuantizationAnnotation(_annotated=True)
            elif annotation is not None:
                for source in masked.intersection(annotation.input_qspec_map):
                    del annotation.input_qspec_map[source]
        self.masked = tuple(node.name for node in model.graph.nodes if node in masked)
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
        if adds or (node.target in _PASSING and not masked.isdisjoint(node.all_input_nodes)):
            masked.add(node)
    return masked


def _is_mask(graph: fx.GraphModule, operand: object) -> bool:
    if isinstance(operand, int | float):
        return abs(operand) >= MASKED
    if not isinstance(operand, fx.Node) or operand.op == "placeholder":
        return False
    values = dict(graph.named_buffers()).get(str(operand.target)) if operand.op == "get_attr" else None
    return values is not None and values.is_floating_point() and bool(values.abs().max() >= MASKED)
