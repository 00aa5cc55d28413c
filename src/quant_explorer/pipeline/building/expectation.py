"""What the files of a candidate must compute: its float model's outputs, as near as quantization allows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import Grid
from quant_explorer.metrics.accuracy import check_logits
from quant_explorer.metrics.fidelity import (
    FP16_TOLERANCE,
    FP32_TOLERANCE,
    ORDINARY,
    UNIFORM,
    Fidelity,
    check_fp32,
    compare_with_simulation,
)
from quant_explorer.tracing.onnx_program import OnnxProgram

if TYPE_CHECKING:
    from quant_explorer.pipeline.building.simulation import Simulation
    from quant_explorer.pipeline.building.simulation.onnx_simulation import OnnxSimulation

# Enough that one image cannot hide a wrong lowering, few enough for the largest model to be quick.
CHECKED_IMAGES = 16
_ORDINARY = "calibration images"
# Of an image's contrast, where it is nearly white or black: kernels overflow with the largest sums.
_CONTRAST = 0.05


class Expectation:
    """The outputs of one candidate, computed once for all runtimes."""

    def __init__(self, candidate: Candidate, calibration: Sequence[Batch]) -> None:
        """Compute nothing yet; `calibration` are batches (n, channels, height, width)."""
        self._candidate, self._calibration = candidate, calibration
        self._images = stress_images(calibration)
        self._simulated = functools.cache(self._simulate)

    @property
    def image(self) -> Batch:
        """One calibration image, to open files with."""
        return self._images[_ORDINARY][:1]

    @functools.cached_property
    def expected(self) -> Mapping[str, Batch]:
        """The logits (n, classes) of the float model for each kind of images."""
        return {kind: self.float_logits(images) for kind, images in self._images.items()}

    def float_logits(self, images: Batch) -> Batch:
        """Return the logits (n, classes) of the float model for images (n, channels, height, width)."""
        import torch

        with torch.inference_mode():
            logits: Batch = self._candidate.model(torch.from_numpy(images.copy())).flatten(1).numpy()
        return logits

    def simulate(self, images: Batch, grid: Grid) -> tuple[Batch, ...]:
        """Return the logits that each simulation of what was asked for leaves of images, see `Simulation`."""
        return tuple(logits.reshape(len(logits), -1) for logits in self._simulation.run(images, grid))

    def check(self, run: Callable[[Batch], Batch], grid: Grid) -> tuple[Fidelity, ...]:
        """Return how near to the float model `run` computes, for each kind of images; nothing for FP32.

        Raises FidelityError with the figures when it is much further away than the simulation of the
        precision that was asked for, UnsupportedError when that leaves no numbers, or `run` gives other
        outputs for the same images the second time.
        """
        precision = self._candidate.spec.precision
        found: list[Fidelity] = []
        for kind, images in self._images.items():
            expected = self.expected[kind]
            logits = run(images)
            check_logits(logits, *expected.shape)
            if kind == _ORDINARY:
                _check_repeated(logits, run(images))
            if precision == "fp32":
                check_fp32(logits, expected)
            else:
                simulated = self._simulated(self._simulation.reduce(grid))[kind]
                margin = ORDINARY if kind == _ORDINARY else UNIFORM
                tolerance = FP16_TOLERANCE if precision == "fp16" else FP32_TOLERANCE
                found.append(compare_with_simulation(logits, expected, simulated, kind, margin, tolerance))
        return tuple(found)

    def _simulate(self, grid: Grid) -> Mapping[str, tuple[Batch, ...]]:
        return {kind: self.simulate(images, grid) for kind, images in self._images.items()}

    @functools.cached_property
    def _simulation(self) -> Simulation | OnnxSimulation:
        if isinstance(self._candidate.model, OnnxProgram):
            from quant_explorer.pipeline.building.simulation.onnx_simulation import OnnxSimulation

            return OnnxSimulation(self._candidate, self._calibration)
        from quant_explorer.pipeline.building.simulation import Simulation

        return Simulation(self._candidate, self._calibration)


def _check_repeated(logits: Batch, again: Batch) -> None:
    # Seen in OpenVINO 2026.4: a product of FP16 constants is computed in memory that a later layer writes to.
    largest = float(np.abs(logits).max(initial=0.0))
    error = float(np.abs(again - logits).max(initial=0.0))
    # Written so that NaN is not near.
    if not error <= FP32_TOLERANCE * largest:
        share = f"{error / largest:.2g} of the largest logit" if largest else f"{error:.2g}"
        raise UnsupportedError(
            f"the runtime gives other outputs for the same images the second time (off by {share}), so that "
            "no figure of the files would hold; choose another precision, or another runtime"
        )


def stress_images(calibration: Sequence[Batch]) -> Mapping[str, Batch]:
    """Return calibration images, and the same ones with nearly all of their pixels lightest or darkest."""
    images = calibration[0][:CHECKED_IMAGES]
    axes = (0, *range(2, images.ndim))
    lightest = functools.reduce(np.maximum, (batch.max(axes, keepdims=True) for batch in calibration))
    darkest = functools.reduce(np.minimum, (batch.min(axes, keepdims=True) for batch in calibration))
    faint = _CONTRAST * images
    return {
        _ORDINARY: images,
        "nearly white ones": faint + (1 - _CONTRAST) * lightest,
        "nearly black ones": faint + (1 - _CONTRAST) * darkest,
    }
