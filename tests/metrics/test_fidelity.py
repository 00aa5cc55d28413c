import math

import numpy as np
import pytest
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError
from quant_explorer.core.quantspec import Precision
from quant_explorer.metrics.fidelity import check_fidelity, sqnr_db

EXPECTED = np.array([[4.0, -8.0], [0.5, 1.0]], np.float32)


def with_noise(power_ratio: float) -> Batch:
    """EXPECTED with noise in all its logits, of so much less power."""
    noise = np.sqrt((EXPECTED.astype(float) ** 2).sum() / power_ratio / EXPECTED.size)
    logits: Batch = EXPECTED + np.array([[1, -1], [-1, 1]], np.float32) * np.float32(noise)
    return logits


def test_sqnr_is_the_formula() -> None:
    """10 log10(sum of r^2 / sum of (q - r)^2): here 100 / 1, that is 20 dB."""
    reference = np.array([[6.0, 0.0], [0.0, 8.0]])
    assert sqnr_db(np.array([[6.6, 0.0], [0.0, 7.2]]), reference) == pytest.approx(20.0)
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(50, 10)).astype(np.float32)
    noisy = exact + rng.normal(scale=0.01, size=exact.shape).astype(np.float32)
    power = (exact.astype(float) ** 2).sum() / ((noisy.astype(float) - exact) ** 2).sum()
    assert sqnr_db(noisy, exact) == pytest.approx(10 * math.log10(power), rel=1e-9)


@pytest.mark.parametrize(
    ("values", "reference"), [([[1.0, 2.0]], [[1.0, 2.0]]), ([[1.0, 2.0]], [[0.0, 0.0]]), ([], [])]
)
def test_sqnr_of_equal_outputs_and_of_silence_is_none(
    values: list[list[float]], reference: list[list[float]]
) -> None:
    assert sqnr_db(np.array(values), np.array(reference)) is None


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_sqnr_is_summed_in_double_precision(kind: type[np.floating]) -> None:
    """The squares of these would overflow in half, and lose their sum in single precision."""
    reference: NDArray[np.floating] = np.full((1, 100_000), 1000, kind)
    assert sqnr_db(reference + kind(100), reference) == pytest.approx(20.0, abs=1e-9)


@pytest.mark.parametrize("off", [0.99e-4, 1.01e-4])
@pytest.mark.parametrize("where", [(0, 0), (1, 1)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_fp32_may_be_off_by_1e_4_of_the_largest_logit(off: float, where: tuple[int, int], sign: int) -> None:
    logits = EXPECTED.copy()
    logits[where] += sign * off * 8.0
    if off < 1e-4:
        check_fidelity(logits, EXPECTED, "fp32")
    else:
        told = r"^the lowered FP32 model is off by 0\.0001 of the largest logit; 0\.0001 is allowed$"
        with pytest.raises(BuildError, match=told):
            check_fidelity(logits, EXPECTED, "fp32")


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp16"])
def test_a_lower_precision_must_reach_two_decibels(precision: Precision) -> None:
    check_fidelity(with_noise(10**0.21), EXPECTED, precision)
    with pytest.raises(BuildError, match=r"^the outputs have 1\.9 dB .*; at least 2 dB are required$"):
        check_fidelity(with_noise(10**0.19), EXPECTED, precision)
    # What was said of another image, and nothing at all.
    with pytest.raises(BuildError, match="0 dB"):
        check_fidelity(np.zeros_like(EXPECTED), EXPECTED, precision)
    with pytest.raises(BuildError, match=r"-\d\.\d dB"):
        check_fidelity(EXPECTED[::-1], EXPECTED, precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_equal_outputs_pass(precision: Precision) -> None:
    check_fidelity(EXPECTED, EXPECTED, precision)
    silence = np.zeros_like(EXPECTED)
    check_fidelity(silence, silence, precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_where_the_float_model_is_silent_only_silence_passes(precision: Precision) -> None:
    silence, sound = np.zeros((2, 3), np.float32), np.full((2, 3), 1e-3, np.float32)
    check_fidelity(silence, silence, precision)
    with pytest.raises(BuildError):
        check_fidelity(sound, silence, precision)
