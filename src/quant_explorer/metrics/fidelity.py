"""Does a lowered variant compute what its float model computes? Found out on a batch, when it is built."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError
from quant_explorer.core.quantspec import Precision

# Of the largest logit. Float32 sums in another order differ by 1e-6 to 1e-5 here.
FP32_TOLERANCE = 1e-4
# An output of zeros has 0 dB, one that has nothing to do with the reference -3 dB. INT8 of networks that
# take it badly (MobileNetV3 after training quantization) was seen at 4 dB.
LEAST_SQNR_DB = 2.0


def check_fidelity(logits: Batch, expected: Batch, precision: Precision) -> None:
    """Raise BuildError with the figure when `logits` (n, classes) are not those of the float model.

    FP32 must be within 1e-4 of the largest expected logit; a lower precision must reach a signal to
    quantization noise ratio of 2 dB.
    """
    if precision == "fp32":
        largest, error = float(np.abs(expected).max()), float(np.abs(logits - expected).max())
        if error > FP32_TOLERANCE * largest:
            share = error / largest if largest else math.inf
            raise BuildError(
                f"the lowered FP32 model is off by {share:.2g} of the largest logit; "
                f"{FP32_TOLERANCE:g} is allowed"
            )
        return
    if np.array_equal(logits, expected):
        return
    found = sqnr_db(logits, expected)
    if found is None or found < LEAST_SQNR_DB:
        figure = "no signal" if found is None else f"{found:.1f} dB signal to quantization noise"
        raise BuildError(
            f"the outputs have {figure} against the float model they were made from; "
            f"at least {LEAST_SQNR_DB:g} dB are required"
        )


def sqnr_db(values: NDArray[np.floating], reference: NDArray[np.floating]) -> float | None:
    """10 log10(sum of squares of the reference / sum of squares of the difference); None where equal."""
    signal = reference.astype(np.float64)
    noise = float(((values - signal) ** 2).sum())
    power = float((signal**2).sum())
    return 10 * math.log10(power / noise) if noise > 0 and power > 0 else None
