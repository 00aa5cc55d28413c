"""Reductions over the last of three dimensions, such as the mean of each token."""

from __future__ import annotations

from typing import Final

import openvino
from openvino import opset13 as ops

_DIMENSIONS: Final = 3
_REDUCTIONS: Final = {
    "ReduceMean": ops.reduce_mean,
    "ReduceSum": ops.reduce_sum,
    "ReduceMax": ops.reduce_max,
    "ReduceMin": ops.reduce_min,
    "ReduceProd": ops.reduce_prod,
    "ReduceL1": ops.reduce_l1,
    "ReduceL2": ops.reduce_l2,
}


def widen_reductions(model: openvino.Model) -> None:
    """Give reductions over the last of three dimensions a fourth one of size 1, in place.

    Behind them the CPU plugin computes something else of a sum or product with a vector along the second
    dimension, when there are several images (seen in OpenVINO 2026.4); with four dimensions it does not.
    """
    for node in model.get_ordered_ops():
        kind = _REDUCTIONS.get(node.get_type_name())
        if kind is None or node.input_value(0).get_partial_shape().rank != _DIMENSIONS:
            continue
        axes = node.input_value(1).get_node()
        if axes.get_type_name() != "Constant":
            continue
        last = _DIMENSIONS - 1
        if {int(axis) % _DIMENSIONS for axis in axes.data.flatten()} != {last}:
            continue
        wide = ops.unsqueeze(node.input_value(0), ops.constant([_DIMENSIONS]))
        kept = bool(node.get_attributes()["keep_dims"])
        made = kind(wide, ops.constant([last, _DIMENSIONS]), keep_dims=kept)
        made.set_friendly_name(node.get_friendly_name())
        if kept:
            made = ops.squeeze(made, ops.constant([_DIMENSIONS]))
        made.output(0).get_tensor().set_names(node.output(0).get_names())
        node.output(0).replace(made.output(0))
    model.validate_nodes_and_infer_types()
