"""Does a lowered variant compute what its float model computes? Found out on a batch, when it is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import FidelityError

# Of the largest logit. Float32 sums in another order differ by 1e-6 to 1e-5 here.
FP32_TOLERANCE = 1e-4
# The same: FP16's own step, for kernels may add up in FP16 (XNNPACK's do), and no simulation does.
FP16_TOLERANCE = 2.0**-10


@dataclass(frozen=True)
class Margin:
    """How many dB below the simulation the outputs may be, and how many a single one of them.

    `least_db` is what they must have, whatever the simulation has: less is indistinguishable from noise.
    """

    whole_db: float
    output_db: float
    least_db: float = -math.inf


# Of the zoo's networks on the runtimes, right files were at most 6.3 dB below the simulation, a single output
# 8.3. What loses a ReLU, a layer's scales or a factor of 1.1 was 9.5 to 33 dB below it. Within what right
# files differ by are results that are off by a step (2 to 8 dB), one scale in place of a channel's (up to 8),
# and some biases that are lost (2 to 20).
# An output of zeros has 0 dB, one that has nothing to do with the images -3 dB.
ORDINARY = Margin(9.0, 13.0, least_db=2.0)
# Of nearly uniform images, whose errors are all alike, so that fewer average out: at most 9.4 and 15.0 dB.
UNIFORM = Margin(13.0, 18.0)


def check_fp32(logits: Batch, expected: Batch) -> None:
    """Raise FidelityError when `logits` (n, classes) are off by over 1e-4 of the largest expected one."""
    largest, error = float(np.abs(expected).max()), float(np.abs(logits - expected).max())
    # Written, as below, so that NaN is not near.
    if not error <= FP32_TOLERANCE * largest:
        share = error / largest if largest else math.inf
        raise FidelityError(
            f"the lowered FP32 model is off by {share:.2g} of the largest logit; "
            f"{FP32_TOLERANCE:g} is allowed"
        )


@dataclass(frozen=True)
class Fidelity:
    """Signal to quantization noise, in dB, of files and of the simulation that is furthest from the model.

    `images` says what they were given; None is no noise, or no signal.
    """

    images: str
    files_db: float | None
    simulated_db: float | None


def compare_with_simulation(
    logits: Batch,
    expected: Batch,
    simulated: Sequence[Batch],
    images: str,
    margin: Margin,
    tolerance: float = FP32_TOLERANCE,
) -> Fidelity:
    """Return how near `logits` (n, classes) are to the `expected` ones of the float model.

    `simulated` are the logits that are left by each set of ranges, `images` says what the model was given,
    `tolerance` is the share of the largest logit that arithmetic itself may be off by.
    Raises FidelityError with both figures when the noise is above that of all of them, or that of a single
    output above its own and the average, by more than the margin, or above what the margin asks at least.
    """
    noise = _noise(logits, expected)
    allowed = np.max([_noise(ideal, expected) for ideal in simulated], axis=0)
    rounding = len(expected) * (tolerance * float(np.abs(expected).max(initial=0.0))) ** 2
    furthest = max(simulated, key=lambda ideal: float(_noise(ideal, expected).sum()))
    found = Fidelity(images, sqnr_db(logits, expected), sqnr_db(furthest, expected))
    if not noise.sum() <= _factor(margin.whole_db) * (allowed.sum() + rounding * noise.size):
        allowance = f"at most {margin.whole_db:g} dB less are allowed"
        raise FidelityError(_explain(f"on {images} the outputs have", found, allowance))
    if found.files_db is not None and found.files_db < margin.least_db:
        allowance = f"outputs below {margin.least_db:g} dB are indistinguishable from noise"
        raise FidelityError(_explain(f"on {images} the outputs have", found, allowance))
    share = noise / (np.maximum(allowed, allowed.mean()) + rounding + np.finfo(np.float64).tiny)
    worst = int(share.argmax())
    if not share[worst] <= _factor(margin.output_db):
        alone = np.s_[:, worst]
        own, ideal = (sqnr_db(values[alone], expected[alone]) for values in (logits, furthest))
        allowance = f"at most {margin.output_db:g} dB less are allowed"
        raise FidelityError(
            _explain(f"on {images} output {worst} alone has", Fidelity(images, own, ideal), allowance)
        )
    return found


def _explain(what: str, found: Fidelity, allowance: str) -> str:
    return (
        f"{what} {_format(found.files_db)} signal to quantization noise against the float model, and a "
        f"simulation of the same quantization has {_format(found.simulated_db)}; {allowance}"
    )


def describe_fidelity(found: Sequence[Fidelity]) -> str:
    """Return the figures of the files, and of the simulation in brackets."""
    kinds = ", ".join(
        f"{_format(item.files_db)} ({_format(item.simulated_db)}) on {item.images}" for item in found
    )
    return f"signal to quantization noise of the files, and of a simulation of the same quantization: {kinds}"


def _noise(logits: Batch, expected: Batch) -> NDArray[np.float64]:
    """Return the sum of squared errors of each output."""
    squared: NDArray[np.float64] = ((logits.astype(np.float64) - expected) ** 2).sum(axis=0)
    return squared


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 10))


def _format(decibels: float | None) -> str:
    return "none" if decibels is None else f"{decibels:.1f} dB"


def sqnr_db(values: NDArray[np.floating], reference: NDArray[np.floating]) -> float | None:
    """10 log10(sum of squares of the reference / sum of squares of the difference); None where equal."""
    signal = reference.astype(np.float64)
    noise = float(((values - signal) ** 2).sum())
    power = float((signal**2).sum())
    return 10 * math.log10(power / noise) if noise > 0 and power > 0 else None
