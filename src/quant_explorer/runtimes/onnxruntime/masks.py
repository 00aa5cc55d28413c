"""Masks of attention in an ONNX graph: constants so large that a softmax makes 0 of them.

A tensor with a mask in it has no useful INT8 scale, and a histogram of it has no bins.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from quant_explorer.core.quantspec import MASKED
from quant_explorer.runtimes.onnx_graph.masks import is_mask

_MASKING = ("Add", "Sub", "Where")
# What hands masked values on; the softmax that ends them reads them too.
_PASSING = (*_MASKING, "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity", "Softmax")


def limit_masks(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Limit the graph's masks to 1e4, of which exp() is 0 in float32 too; return the nodes to keep in float.

    These are the nodes that add a mask, and those behind them as far as a softmax.
    """
    masks = {item.name: item for item in graph.initializer if is_mask(item)}
    reading = [
        node for node in graph.node if node.op_type in _MASKING and not masks.keys().isdisjoint(node.input)
    ]
    for name in {name for node in reading for name in node.input} & masks.keys():
        if all(node in reading for node in graph.node if name in node.input):
            limited = numpy_helper.to_array(masks[name]).clip(-MASKED, MASKED)
            masks[name].CopyFrom(numpy_helper.from_array(limited, name))
    return tuple(dict.fromkeys(node.name for start in reading for node in _behind(graph, start)))


def _behind(graph: onnx.GraphProto, start: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    pending = [start]
    while pending:
        node = pending.pop()
        yield node
        if node.op_type != "Softmax":
            outputs = set(node.output)
            pending += [
                reader
                for reader in graph.node
                if reader.op_type in _PASSING and not outputs.isdisjoint(reader.input)
            ]
