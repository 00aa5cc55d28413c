"""Which constants of an ONNX graph are masks of attention."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from quant_explorer.core.quantspec import MASKED


def is_mask(item: onnx.TensorProto) -> bool:
    """Say whether a float tensor has a number so large that a softmax makes 0 of it."""
    if item.data_type != onnx.TensorProto.FLOAT:
        return False
    values = numpy_helper.to_array(item)
    return bool(values.size) and float(np.abs(values).max()) >= MASKED
