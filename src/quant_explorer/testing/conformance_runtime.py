"""What every runtime must do, as tests that its author inherits. Needs pytest.

    class TestMyRuntime(RuntimeConformance):
        kind = MyRuntime

Everything a session does is asked of a real worker process that has the files and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, get_args

import numpy as np
import pytest

from quant_explorer.core.contracts import Batch, Candidate, Runtime
from quant_explorer.core.measurement import Executed
from quant_explorer.core.quantspec import Activations, Precision, QuantSpec
from quant_explorer.pipeline.building.expectation import Expectation
from quant_explorer.testing.conformance_static import StaticConformance
from quant_explorer.testing.lowered import SPECS as SPECS
from quant_explorer.testing.lowered import LoweredCandidate, OpenedCandidate, file_sizes, lower, open_lowered
from quant_explorer.testing.reference import ROUNDING, float_logits
from quant_explorer.testing.toys import (
    TOY_CLASSES,
    TOY_CONVOLUTION_MACS,
    TOY_LINEAR_MACS,
    TOY_SHAPE,
    toy_batches,
    toy_model,
)

if TYPE_CHECKING:
    from torch import nn

HALF: Final = ("bf16", "fp16")
# A product of two values of 8 bits of fraction (BF16) is off by 2**-8 at most: 48 dB.
HALF_SQNR_DB: Final = 30.0
INT8_SQNR_DB: Final = 20.0
# Of the largest logit. Ranges are those of the batch in dynamic INT8; sums may be rounded to BF16.
ROWS_DIFFER: Final = {"dynamic_int8": 0.05, "bf16": 0.02, "fp16": 0.0025}
# Within it sizes tie.
SIZE_TOLERANCE: Final = 0.01


class RuntimeConformance(StaticConformance):
    """Inherit and set `kind`; `options` are its constructor's.

    `model`, `shape` and the hand-counted `convolution_macs` and `linear_macs` (of one image) may be
    replaced together by a runtime that lowers less than a small convolutional network. The steps of INT8
    are those of `StaticConformance`.
    """

    shape: ClassVar[tuple[int, int, int]] = TOY_SHAPE
    convolution_macs: ClassVar[int] = TOY_CONVOLUTION_MACS
    linear_macs: ClassVar[int] = TOY_LINEAR_MACS
    float_tolerance: ClassVar[float] = 1e-4

    def model(self) -> nn.Module:
        """Return the float model, in eval mode, that gives (n, 4) for (n, *shape)."""
        return toy_model()

    @pytest.fixture(scope="class")
    @classmethod
    def float_model(cls) -> nn.Module:
        """Return the one model that all specs start from, as in a run."""
        return cls().model()

    @pytest.fixture(scope="class")
    @classmethod
    def other_model(cls, float_model: nn.Module) -> nn.Module:
        """Return the same architecture with other weights."""
        import torch

        other = copy.deepcopy(float_model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(-0.7)
        return other

    @pytest.fixture(params=SPECS, scope="class")
    @classmethod
    def candidate(cls, request: pytest.FixtureRequest, runtime: Runtime, float_model: nn.Module) -> Candidate:
        """Return the model with each spec in turn, skipping those the runtime does not lower."""
        candidate = Candidate(float_model, SPECS[request.param])
        reason = runtime.unsupported(candidate)
        if reason is not None:
            pytest.skip(reason)
        return candidate

    @pytest.fixture(scope="class")
    @classmethod
    def files(
        cls, candidate: Candidate, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
    ) -> LoweredCandidate:
        """Return the candidate's files. Replace it where other tests have lowered the same."""
        return lower(runtime, candidate, toy_batches(cls.shape), tmp_path_factory.mktemp("lowered"))

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, files: LoweredCandidate, runtime: Runtime) -> Iterator[OpenedCandidate]:
        """Yield the candidate's files, opened by a worker that all tests of this spec share."""
        with open_lowered(runtime, files, toy_batches(cls.shape, count=1)[0]) as opened:
            yield opened

    def executed(self, opened: OpenedCandidate, batch: Batch) -> Executed:
        """Return what the worker says that it ran. Replace it where each would load for seconds to say it."""
        return opened.worker.executed(batch)

    def test_fp32_is_supported(self, runtime: Runtime) -> None:
        """FP32 is measured in every runtime, or its own gain would be taken for that of INT8."""
        assert runtime.unsupported(Candidate(self.model(), QuantSpec())) is None

    @pytest.mark.parametrize("precision", get_args(Precision))
    @pytest.mark.parametrize("activations", get_args(Activations))
    def test_unsupported_is_none_or_a_reason(
        self, runtime: Runtime, precision: Precision, activations: Activations
    ) -> None:
        """It never raises, and an empty reason tells nobody what to do."""
        reason = runtime.unsupported(Candidate(self.model(), QuantSpec(precision, activations)))
        assert reason is None or reason.strip()

    def test_versions_are_named(self, runtime: Runtime) -> None:
        """The versions go into digests; without any, an upgrade would change no digest."""
        versions = runtime.versions()
        assert versions
        assert all(name and version for name, version in versions.items())

    def test_lowering_leaves_the_model_untouched(self, opened: OpenedCandidate) -> None:
        """Weights, buffers, training modes, modules, attributes and hooks are what they were."""
        assert opened.changed == []

    def test_lowering_again_gives_files_whose_sizes_tie(
        self, runtime: Runtime, opened: OpenedCandidate, other_model: nn.Module, tmp_path: Path
    ) -> None:
        """The folder leaves no trace in the files, and the values of the weights only digits of scales."""
        folder = tmp_path / "a-longer-name-than-before"
        folder.mkdir()
        lowering = runtime.lower(
            Candidate(other_model, opened.candidate.spec), toy_batches(self.shape), folder
        )
        assert opened.sizes, "nothing was written"
        assert file_sizes(folder) == pytest.approx(opened.sizes, rel=SIZE_TOLERANCE)
        assert lowering == opened.lowering

    def test_outputs_are_as_near_as_a_simulation_of_the_precision(self, opened: OpenedCandidate) -> None:
        """On ordinary, nearly white and nearly black images, with the grid that the lowering names."""
        found = Expectation(opened.candidate, toy_batches(self.shape)).check(
            opened.worker.run, opened.lowering.grid
        )
        assert len(found) == (0 if opened.spec == "fp32" else 3)

    def test_outputs_are_those_of_the_float_model(self, opened: OpenedCandidate) -> None:
        """FP32 to 1e-4 of the largest logit; half precision to 30 dB; INT8 to 20 dB, but worse than FP32."""
        batch = toy_batches(self.shape, count=1, seed=1)[0]
        logits, expected = opened.worker.run(batch), float_logits(opened.candidate.model, batch)
        assert logits.dtype == np.float32
        assert logits.shape == (len(batch), len(TOY_CLASSES))
        error = logits - expected
        rounding = self.float_tolerance * np.abs(expected).max()
        sqnr_db = 10 * np.log10((expected**2).sum() / (error**2).sum())
        if opened.spec == "fp32":
            assert np.abs(error).max() <= rounding
        elif opened.spec in HALF:
            assert sqnr_db > HALF_SQNR_DB
        else:
            assert np.abs(error).max() > rounding, "INT8 that equals FP32 is not INT8"
            assert sqnr_db > INT8_SQNR_DB

    @pytest.mark.parametrize("size", [1, 3, 8])
    def test_rows_do_not_depend_on_the_batch(self, opened: OpenedCandidate, size: int) -> None:
        """Up to rounding of sums; up to one step of the input where its range is that of the batch."""
        images = toy_batches(self.shape, count=1, size=32, seed=2)[0]
        whole = opened.worker.run(images)
        part = opened.worker.run(np.ascontiguousarray(images[:size]))
        assert part.shape == (size, len(TOY_CLASSES))
        share = ROWS_DIFFER.get(opened.spec, ROUNDING)
        assert np.abs(part - whole[:size]).max() <= share * np.abs(whole).max()

    def test_executed_macs_are_those_counted_by_hand(self, opened: OpenedCandidate) -> None:
        """Both how many, and in which precision, as it was asked for; only half may run in another."""
        executed = self.executed(opened, toy_batches(self.shape, count=1)[0][:1])
        total = self.convolution_macs + self.linear_macs
        assert executed.kernels
        if opened.spec in HALF:
            assert sum(executed.macs.values()) == total
            return
        expected = {
            "fp32": {"fp32": total},
            "dynamic_int8": {"fp32": self.convolution_macs, "int8": self.linear_macs},
        }.get(opened.spec, {"int8": total})
        assert {name: macs for name, macs in executed.macs.items() if macs} == {
            name: macs for name, macs in expected.items() if macs
        }

    def test_executed_macs_are_those_of_one_image(self, opened: OpenedCandidate) -> None:
        """Counts are per image, whatever the batch."""
        batch = toy_batches(self.shape, count=1)[0]
        assert self.executed(opened, batch).macs == self.executed(opened, batch[:1]).macs

    def test_same_input_same_output(self, opened: OpenedCandidate) -> None:
        """The same bits again, with other images between: none stay behind in memory that is used again."""
        batch, other = toy_batches(self.shape, count=2, seed=3)
        logits = opened.worker.run(batch)
        assert (opened.worker.run(other) != logits).any()
        np.testing.assert_array_equal(opened.worker.run(batch), logits)
