from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from quant_explorer.machine.peaks import probe
from quant_explorer.machine.peaks.kernels import Call
from quant_explorer.machine.peaks.probe import WHAT, Effort, MeasuredRoof, array_bytes

QUICK = Effort(sizes=(64,), seconds=0.0, array_bytes=4_000_000)


class Machine:
    """A clock that only its own kernels move: each call of size n takes n^3 / rate nanoseconds."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sizes: list[int] = []

    def perf_counter(self) -> float:
        return self.now_s

    def kernel(self, gmacs_per_s: Callable[[int], float]) -> Callable[[int], Call]:
        def prepare(size: int) -> Call:
            self.sizes.append(size)

            def call() -> None:
                self.now_s += size**3 / gmacs_per_s(size) / 1e9

            return call

        return prepare


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=machine.perf_counter))
    return machine


def fastest(
    monkeypatch: pytest.MonkeyPatch, effort: Effort, **kernels: Callable[[int], Call]
) -> MeasuredRoof:
    monkeypatch.setattr(probe, "KERNELS", {"int8": kernels})
    return probe._fastest_kernel("int8", effort)


def missing(size: int) -> Call:
    raise RuntimeError("not on this processor\nand more")


def test_the_peak_is_that_of_the_fastest_kernel_at_its_best_size(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = machine.kernel(lambda size: 50.0)
    fast = machine.kernel(lambda size: 80.0 if size == 128 else 70.0)
    effort = Effort(sizes=(64, 128, 256), seconds=0.001)
    found = fastest(monkeypatch, effort, slow=slow, fast=fast, missing=missing, again=slow)
    assert (found.kernel, found.reason) == ("fast", "")
    assert found.value == pytest.approx(80.0)


def test_sizes_that_would_take_too_long_are_left_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 128^3 at 0.01 GMAC/s took 0.2 s, so 256^3 would take 1.7 s.
    emulated = machine.kernel(lambda size: 0.01)
    found = fastest(monkeypatch, Effort(sizes=(128, 256, 512), seconds=0.0), emulated=emulated)
    assert machine.sizes == [128]
    assert found.value == pytest.approx(0.01)


def test_without_a_kernel_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fastest(monkeypatch, QUICK, missing=missing)
    assert found == MeasuredRoof("int8", None, "", "missing: RuntimeError: not on this processor")


def test_each_roof_is_measured() -> None:
    figures = list(probe.probe(QUICK))
    assert tuple(figure.what for figure in figures) == WHAT
    assert all(figure.kernel if figure.value else figure.reason for figure in figures)
    assert {"gb_per_s", "fp32"} <= {figure.what for figure in figures if figure.value}


def test_arrays_are_four_of_the_largest_cache(tmp_path: Path) -> None:
    for index, size in enumerate(("32K\n", "2M\n", "512\n")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size)
    assert array_bytes(tmp_path) == 4 * 2 * 1024**2


def test_arrays_leave_memory_to_others_and_an_unknown_cache_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "available_bytes", lambda: 10_000_000_000)
    assert array_bytes(tmp_path) == 256_000_000
    monkeypatch.setattr(probe, "available_bytes", lambda: 8_000_000)
    assert array_bytes(tmp_path) == 2_000_000
