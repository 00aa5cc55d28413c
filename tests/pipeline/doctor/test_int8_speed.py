"""The short measurement behind `doctor`, on the fake runtime in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import SettingsError, UnsupportedError, WorkerDiedError
from quant_explorer.machine.topology import available_cores
from quant_explorer.pipeline.doctor.int8_speed import measure_int8_speed
from quant_explorer.testing.fake_runtime import FakeRuntime

honest = FakeRuntime.unsupported


def test_int8_is_timed_beside_fp32(tmp_path: Path) -> None:
    found = measure_int8_speed(FakeRuntime(), 1, tmp_path)
    assert (found.granularity, found.int8_fraction) == ("per_channel", 1.0)
    assert found.interval.low <= found.speedup <= found.interval.high
    # In INT8 the fake runtime does all that it does in FP32, and quantizes besides.
    assert found.speedup < 1


def test_a_runtime_without_kernels_for_channels_gets_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(runtime: FakeRuntime, candidate: Candidate) -> str | None:
        per_channel = candidate.spec.granularity == "per_channel"
        return "no kernels per channel" if per_channel else honest(runtime, candidate)

    monkeypatch.setattr(FakeRuntime, "unsupported", unsupported)
    assert measure_int8_speed(FakeRuntime(), 1, tmp_path).granularity == "per_tensor"


def test_what_is_named_int8_and_runs_in_float_is_seen(tmp_path: Path) -> None:
    assert measure_int8_speed(FakeRuntime("float_named_int8"), 1, tmp_path).int8_fraction == 0.0


def test_without_static_int8_there_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRuntime, "unsupported", lambda runtime, candidate: "no INT8 here")
    with pytest.raises(UnsupportedError, match=r"^no INT8 here$"):
        measure_int8_speed(FakeRuntime(), 1, tmp_path)
    monkeypatch.setattr(FakeRuntime, "unavailable", lambda runtime: "not installed")
    with pytest.raises(UnsupportedError, match=r"^not installed$"):
        measure_int8_speed(FakeRuntime(), 1, tmp_path)


def test_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        measure_int8_speed(FakeRuntime("die", fault_after=1), 1, tmp_path)


def test_more_threads_than_cores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--threads"):
        measure_int8_speed(FakeRuntime(), available_cores() + 1, tmp_path)
