"""The fake runtime conforms when it is honest, and each of its faults is seen through a real worker."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import WorkerDiedError, WorkerError, WorkerTimeoutError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.pipeline.worker.messages import Loading, Opening
from quant_explorer.pipeline.worker.process import Worker, runtime_path
from quant_explorer.testing.conformance_runtime import RuntimeConformance
from quant_explorer.testing.conformance_static import LINEAR_SHAPE
from quant_explorer.testing.fake_runtime import SLOW_CALL_S, FakeRuntime, Fault
from quant_explorer.testing.lowered import SPECS, OpenedCandidate, lower_and_open
from quant_explorer.testing.toys import toy_batches, toy_linear_model, toy_model

BATCH = toy_batches(LINEAR_SHAPE, count=1)[0]
STATIC = "static_int8_per_channel"


class TestHonest(RuntimeConformance):
    kind = FakeRuntime
    shape = LINEAR_SHAPE
    convolution_macs = 0
    linear_macs = 4 * 48

    def model(self) -> nn.Module:
        return toy_linear_model()


@contextmanager
def started(
    folder: Path, runtime: FakeRuntime, spec: str = "fp32", timeout_s: float = 60
) -> Iterator[Worker]:
    files = folder / "files"
    files.mkdir()
    candidate = Candidate(toy_linear_model(), SPECS[spec])
    lowering = runtime.lower(candidate, (BATCH,), files)
    loading = Loading(runtime_path(FakeRuntime), lowering.options, measuring_cores(1))
    with Worker(loading, log=folder / "log", timeout_s=timeout_s) as worker:
        worker.assign(Opening(lowering.options, str(files)))
        yield worker


@contextmanager
def opened(folder: Path, fault: Fault, spec: str = "fp32", after: int = 0) -> Iterator[OpenedCandidate]:
    candidate = Candidate(toy_linear_model(), SPECS[spec])
    with lower_and_open(FakeRuntime(fault, after), candidate, (BATCH,), folder) as lowered:
        yield lowered


def test_worker_imports_no_torch() -> None:
    program = (
        "import sys, quant_explorer.pipeline.worker.process, quant_explorer.testing.fake_runtime as f;"
        "f.FakeRuntime().load_libraries(1); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_any_model_with_a_linear_layer_is_taken(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    candidate = Candidate(toy_model(), QuantSpec())
    assert runtime.unsupported(candidate) is None
    runtime.lower(candidate, toy_batches(), tmp_path)
    assert runtime.open(tmp_path).run(toy_batches()[0]).shape == (8, 4)
    assert "nn.Linear" in (runtime.unsupported(Candidate(nn.Flatten(), QuantSpec())) or "")


def test_die(tmp_path: Path) -> None:
    with started(tmp_path, FakeRuntime("die")) as worker, pytest.raises(WorkerDiedError, match="SIGKILL"):
        worker.open(BATCH)


def test_hang(tmp_path: Path) -> None:
    with opened(tmp_path, "hang", after=1) as variant:
        variant.worker._timeout_s = 0.2
        with pytest.raises(WorkerTimeoutError):
            variant.worker.run(BATCH)


def test_raise_after_some_calls(tmp_path: Path) -> None:
    with opened(tmp_path, "raise", after=2) as variant:
        assert variant.worker.run(BATCH).shape == (8, 4)
        with pytest.raises(WorkerError, match="RuntimeError: the fake runtime was asked to raise"):
            variant.worker.run(BATCH)


def test_slow(tmp_path: Path) -> None:
    with opened(tmp_path, "slow") as variant:
        variant.worker.hold(BATCH)
        assert min(variant.worker.time(0)) >= SLOW_CALL_S * 1e9


def test_nan_and_wrong_shape_fail_the_conformance_suite(tmp_path: Path) -> None:
    faults: tuple[Fault, ...] = ("nan", "wrong_shape")
    for fault in faults:
        folder = tmp_path / fault
        folder.mkdir()
        with opened(folder, fault) as variant, pytest.raises(AssertionError):
            TestHonest().test_outputs_are_those_of_the_float_model(variant)


def test_float_named_int8_fails_the_conformance_suite(tmp_path: Path) -> None:
    with opened(tmp_path, "float_named_int8", STATIC) as variant:
        assert variant.worker.executed(BATCH).macs == {"fp32": 192}
        with pytest.raises(AssertionError):
            TestHonest().test_executed_macs_are_those_counted_by_hand(variant)
        with pytest.raises(AssertionError):
            TestHonest().test_outputs_are_those_of_the_float_model(variant)


@pytest.mark.parametrize("damage", ["weight_scale", "bias"])
def test_a_wrong_scale_fails_the_conformance_suite(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that is 1.2 % off, or a lost bias: the bound of one step must notice."""
    lower = FakeRuntime.lower

    def damaged(
        self: FakeRuntime, candidate: Candidate, calibration: tuple[np.ndarray, ...], folder: Path
    ) -> object:
        lowering = lower(self, candidate, calibration, folder)
        with np.load(folder / "linear.npz") as file:
            arrays = dict(file)
        arrays[damage] = arrays[damage] * (0 if damage == "bias" else 1 + 3 / 256)
        np.savez(folder / "linear.npz", **arrays)
        return lowering

    monkeypatch.setattr(FakeRuntime, "lower", damaged)
    with pytest.raises(AssertionError):
        TestHonest().test_one_static_layer_is_as_exact_as_its_formula(FakeRuntime(), "per_channel", tmp_path)


def test_a_runtime_that_touches_the_model_fails_the_conformance_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = FakeRuntime.lower

    def training(self: FakeRuntime, candidate: Candidate, calibration: object, folder: Path) -> object:
        candidate.model.train()
        return lower(self, candidate, (BATCH,), folder)

    monkeypatch.setattr(FakeRuntime, "lower", training)
    with opened(tmp_path, "") as touched, pytest.raises(AssertionError):
        TestHonest().test_lowering_leaves_the_model_untouched(touched)
