import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import BuildError, FidelityError
from quant_explorer.metrics.fidelity import (
    FP16_TOLERANCE,
    ORDINARY,
    UNIFORM,
    Fidelity,
    Margin,
    check_fp32,
    compare_with_simulation,
    describe_fidelity,
    sqnr_db,
)

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
        check_fp32(logits, EXPECTED)
    else:
        message = r"^the lowered FP32 model is off by 0\.0001 of the largest logit; 0\.0001 is allowed$"
        with pytest.raises(BuildError, match=message):
            check_fp32(logits, EXPECTED)


def check_int8(logits: Batch, expected: Batch) -> None:
    """As what a simulation gives exactly."""
    compare_with_simulation(logits, expected, [expected], "images", ORDINARY)


@pytest.mark.parametrize("check", [check_fp32, check_int8])
def test_equal_outputs_pass(check: Callable[[Batch, Batch], None]) -> None:
    check(EXPECTED, EXPECTED)
    silence = np.zeros_like(EXPECTED)
    check(silence, silence)


@pytest.mark.parametrize("check", [check_fp32, check_int8])
def test_nothing_is_near_what_is_not_a_number(check: Callable[[Batch, Batch], None]) -> None:
    broken = np.full_like(EXPECTED, np.nan)
    for logits, expected in ((broken, EXPECTED), (EXPECTED, broken), (broken, broken)):
        with pytest.raises(FidelityError):
            check(logits, expected)


@pytest.mark.parametrize("check", [check_fp32, check_int8])
def test_where_the_float_model_is_silent_only_silence_passes(check: Callable[[Batch, Batch], None]) -> None:
    silence, sound = np.zeros((2, 3), np.float32), np.full((2, 3), 1e-3, np.float32)
    check(silence, silence)
    with pytest.raises(BuildError):
        check(sound, silence)


def test_noise_is_not_distinguished_from_a_wrong_lowering_however_noisy_the_simulation_is() -> None:
    noisy = [with_noise(10**-0.1)]
    compare_with_simulation(with_noise(10**0.21), EXPECTED, noisy, "images", ORDINARY)
    with pytest.raises(FidelityError, match=r"has -1\.0 dB; outputs below 2 dB are indistinguishable"):
        compare_with_simulation(with_noise(10**0.19), EXPECTED, noisy, "images", ORDINARY)
    # Zeros, and the logits of another image.
    for wrong in (np.zeros_like(EXPECTED), EXPECTED[::-1]):
        with pytest.raises(FidelityError, match="below 2 dB"):
            compare_with_simulation(wrong, EXPECTED, noisy, "images", ORDINARY)
        compare_with_simulation(wrong, EXPECTED, noisy, "images", UNIFORM)


MARGIN = Margin(whole_db=10.0, output_db=13.0)


def compared(found_db: float, *simulated_db: float) -> Fidelity:
    """Noise in all logits, by its distance from them."""
    noisy = [with_noise(10 ** (decibels / 10)) for decibels in simulated_db]
    return compare_with_simulation(with_noise(10 ** (found_db / 10)), EXPECTED, noisy, "images", MARGIN)


def test_outputs_may_be_so_much_noisier_than_the_simulation_that_is_furthest_from_the_model() -> None:
    found = compared(20.1, 35.0, 30.0)
    assert found.files_db == pytest.approx(20.1, abs=1e-3)
    assert found.simulated_db == pytest.approx(30.0, abs=1e-3)
    message = (
        r"^on images the outputs have 19\.9 dB signal to quantization noise against the float model, and a "
        r"simulation of the same quantization has 30\.0 dB; at most 10 dB less are allowed$"
    )
    with pytest.raises(FidelityError, match=message):
        compared(19.9, 35.0, 30.0)


def test_what_float32_may_be_off_by_is_no_fault() -> None:
    exact = [EXPECTED.copy()]
    compare_with_simulation(EXPECTED * np.float32(1 + 1e-5), EXPECTED, exact, "images", MARGIN)
    with pytest.raises(FidelityError, match=r"60\.0 dB .* has none"):
        compare_with_simulation(EXPECTED * np.float32(1.001), EXPECTED, exact, "images", MARGIN)


def test_what_is_added_up_in_fp16_may_be_off_by_its_step() -> None:
    exact = [with_noise(1e9)]
    compare_with_simulation(with_noise(1e5), EXPECTED, exact, "images", ORDINARY, FP16_TOLERANCE)
    with pytest.raises(FidelityError):
        compare_with_simulation(with_noise(1e5), EXPECTED, exact, "images", ORDINARY)
    with pytest.raises(FidelityError):
        compare_with_simulation(with_noise(1e3), EXPECTED, exact, "images", ORDINARY, FP16_TOLERANCE)


@pytest.mark.parametrize(("factor", "passes"), [(4.0, True), (5.0, False)])
def test_one_output_alone_may_be_noisier_but_not_much(factor: float, passes: bool) -> None:
    """Of 100 outputs one has 16 or 25 times the power of noise: 12 or 14 dB, and 0.6 or 0.9 dB in all."""
    noise = np.full((4, 100), 0.1, np.float32)
    expected = np.ones_like(noise)
    logits = expected + noise
    logits[:, 7] = 1 + factor * 0.1
    if passes:
        compare_with_simulation(logits, expected, [expected + noise], "images", MARGIN)
        return
    with pytest.raises(
        FidelityError, match=r"^on images output 7 alone has 6\.0 dB .* has 20\.0 dB; at most 13"
    ):
        compare_with_simulation(logits, expected, [expected + noise], "images", MARGIN)


def test_both_figures_are_described() -> None:
    found = [Fidelity("calibration images", 40.04, 41.0), Fidelity("nearly white ones", None, 30.0)]
    assert describe_fidelity(found) == (
        "signal to quantization noise of the files, and of a simulation of the same quantization: "
        "40.0 dB (41.0 dB) on calibration images, none (30.0 dB) on nearly white ones"
    )
