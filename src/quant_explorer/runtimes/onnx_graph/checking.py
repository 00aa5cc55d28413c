"""Whether an exported graph is the model: what INT8 makes of another one may still be near to the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.tracing.onnx_program import OnnxProgram

CHECKED_IMAGES: Final = 4
# Of the largest logit: what is exported as something else is far off.
_TOLERANCE: Final = 1e-3


def check_exported(model: nn.Module, images: Batch, run: Callable[[Batch], Batch]) -> None:
    """Raise UnsupportedError when `run`, the exported graph in FP32, is not `model`.

    A few of the images (n, channels, height, width) are compared. What was read from an ONNX file is that
    file.
    """
    if isinstance(model, OnnxProgram):
        return
    images = images[:CHECKED_IMAGES]
    with torch.inference_mode():
        # A copy, because forward() may write to what it is given.
        expected: Batch = model(torch.from_numpy(images.copy())).flatten(1).numpy()
    error = float(np.abs(run(images).reshape(expected.shape) - expected).max())
    largest = float(np.abs(expected).max())
    # Written so that NaN is not near.
    if not error <= _TOLERANCE * largest:
        raise UnsupportedError(
            f"the ONNX exporter makes something else of the model: in FP32 the exported graph is off by "
            f"{error / largest if largest else math.inf:.2g} of the largest logit; write its rarer "
            "operators otherwise, or choose a runtime that is not lowered to by ONNX"
        )
