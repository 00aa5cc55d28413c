"""What static INT8 must compute in every runtime, as tests that its author inherits. Needs pytest.

Judged by integer arithmetic written out in float64, and by no runtime's library.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, get_args

import numpy as np
import pytest

from quant_explorer.core.contracts import Batch, Candidate, Lowering, Runtime
from quant_explorer.core.quantspec import Granularity, QuantSpec, Target
from quant_explorer.core.recipe import ParameterValue
from quant_explorer.testing import near_white
from quant_explorer.testing.lowered import open_files
from quant_explorer.testing.reference import ROUNDING, LinearLayer, float_logits
from quant_explorer.testing.toys import (
    TOY_CONVOLUTION_MACS,
    TOY_LAYER_MACS,
    TOY_SHAPE,
    toy_batches,
    toy_linear_model,
    toy_model,
)

if TYPE_CHECKING:
    from torch import nn

LINEAR_SHAPE: Final = (3, 4, 4)
WORKER_TIMEOUT_S: Final = 120.0


class StaticConformance:
    """Part of `RuntimeConformance`, whose attributes these are.

    `weight_levels` is the vendor's convention for symmetric weights, scale = max|w| / weight_levels;
    activations have scale = (max - min) / activation_levels. `portable_weight_levels` and
    `portable_activation_levels` are those for the target "portable", None where they are the same. The
    vendor gives no activation a scale below `smallest_activation_scale`.
    """

    kind: ClassVar[type[Runtime]]
    options: ClassVar[tuple[tuple[str, ParameterValue], ...]] = ()
    convolution_macs: ClassVar[int] = TOY_CONVOLUTION_MACS
    weight_levels: ClassVar[float] = 127.5
    activation_levels: ClassVar[int] = 255
    portable_weight_levels: ClassVar[float | None] = None
    portable_activation_levels: ClassVar[int | None] = None
    smallest_activation_scale: ClassVar[float] = 0.0

    def linear_images(self) -> Batch:
        """Return the images (n, 3, 4, 4) whose range the quantized linear layer is calibrated on."""
        return toy_batches(LINEAR_SHAPE, count=1, size=64)[0]

    @pytest.fixture(scope="class")
    @classmethod
    def runtime(cls) -> Runtime:
        """Return the runtime, or skip with the reason why it is not available here."""
        runtime = cls.kind(**dict(cls.options))
        reason = runtime.unavailable()
        if reason is not None:
            assert reason.strip(), "an empty reason tells nobody what to do"
            pytest.skip(reason)
        return runtime

    def logits(self, runtime: Runtime, lowering: Lowering, folder: Path, images: Batch) -> Batch:
        """Return what a worker computes from the files in `folder`. Replace it where each loads long."""
        with open_files(runtime, lowering, folder, images) as worker:
            return worker.run(images)

    @pytest.mark.parametrize("granularity", get_args(Granularity))
    def test_one_static_layer_is_as_exact_as_its_formula(
        self, runtime: Runtime, granularity: Granularity, tmp_path: Path
    ) -> None:
        """Against fake quantization in float64: one output step. Against FP32: the half steps, propagated."""
        model = toy_linear_model()
        candidate = Candidate(model, QuantSpec("int8", "static", granularity, "minmax"))
        reason = runtime.unsupported(candidate)
        if reason is not None:
            pytest.skip(reason)
        images = self.linear_images()
        lowering = runtime.lower(candidate, (images,), tmp_path)
        logits = self.logits(runtime, lowering, tmp_path, images)
        layer = LinearLayer.of(model, images, granularity, self.weight_levels, self.activation_levels)
        simulated = layer.output.round_trip(layer.quantized_sums())
        assert np.abs(logits - simulated).max() <= layer.output.scale * (1 + ROUNDING)
        assert np.all(np.abs(logits - layer.sums()) <= layer.half_steps() * (1 + ROUNDING))

    @pytest.mark.parametrize("target", get_args(Target))
    def test_near_white_is_as_in_exact_integer_arithmetic(
        self, runtime: Runtime, target: Target, tmp_path: Path
    ) -> None:
        """Classes, and logits to one output step, where kernels without VNNI overflow at full range."""
        model, images = near_white.linear_model(), near_white.linear_images()
        lowering, logits = self._run_static(runtime, model, images, target, tmp_path)
        weight_levels, activation_levels = self._levels(target)
        layer = LinearLayer.of(model, images, "per_channel", weight_levels, activation_levels)
        exact = layer.quantized_sums()
        np.testing.assert_array_equal(exact.argmax(1), near_white.labels())
        np.testing.assert_array_equal(logits.argmax(1), near_white.labels())
        step = max(layer.output.scale, self.smallest_activation_scale)
        assert np.abs(logits - exact).max() <= step * (1 + ROUNDING)
        if target == "native":
            assert set(lowering.needs) <= set(runtime.cpu_features())
        else:
            assert "VNNI" not in lowering.needs

    @pytest.mark.parametrize("layer", ["0", "4", "9"])
    def test_a_layer_named_in_float_runs_in_float(self, runtime: Runtime, layer: str, tmp_path: Path) -> None:
        """As counted by hand, from what the worker executed; `inspect` promises nothing else of the model."""
        if not self.convolution_macs:
            pytest.skip("the runtime lowers no convolutions")
        spec = QuantSpec("int8", "static", observer="minmax", float_layers=(layer,))
        candidate = Candidate(toy_model(), spec)
        if reason := runtime.unsupported(candidate):
            pytest.skip(reason)
        assert runtime.kept_in_float(candidate) == {}
        batches = toy_batches(TOY_SHAPE)
        lowering = runtime.lower(candidate, batches, tmp_path)
        with open_files(runtime, lowering, tmp_path, batches[0]) as worker:
            executed = worker.executed(batches[0])
        total, kept = sum(TOY_LAYER_MACS.values()), TOY_LAYER_MACS[layer]
        assert executed.macs == {"fp32": kept, "int8": total - kept}

    def test_near_white_convolutions_are_exact(self, runtime: Runtime, tmp_path: Path) -> None:
        """Dense and depthwise, with SiLU: half a step for every tensor, and for every weight."""
        if not self.convolution_macs:
            pytest.skip("the runtime lowers no convolutions")
        model, images = near_white.network(), near_white.network_images()
        _, logits = self._run_static(runtime, model, images, "native", tmp_path)
        expected = float_logits(model, images)
        weight_levels, activation_levels = self._levels("native")
        share = near_white.largest_error(weight_levels, activation_levels)
        np.testing.assert_array_equal(logits.argmax(1), near_white.labels())
        assert np.abs(logits - expected).max() <= share * np.abs(expected).max()

    def _levels(self, target: Target) -> tuple[float, int]:
        native = self.weight_levels, self.activation_levels
        if target == "native":
            return native
        return self.portable_weight_levels or native[0], self.portable_activation_levels or native[1]

    def _run_static(
        self, runtime: Runtime, model: nn.Module, images: Batch, target: Target, folder: Path
    ) -> tuple[Lowering, Batch]:
        """Calibrate on `images` by minimum and maximum, and return the worker's logits for them."""
        # All rows have the same largest weight, so that it makes no difference.
        specs = [
            QuantSpec("int8", "static", granularity, "minmax", target=target)
            for granularity in get_args(Granularity)
        ]
        reasons = [runtime.unsupported(Candidate(model, spec)) for spec in specs]
        if None not in reasons:
            pytest.skip(str(reasons[0]))
        candidate = Candidate(model, specs[reasons.index(None)])
        lowering = runtime.lower(candidate, (images,), folder)
        return lowering, self.logits(runtime, lowering, folder, images)
