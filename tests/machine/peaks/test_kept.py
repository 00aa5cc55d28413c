from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.errors import SettingsError, StorageError
from quant_explorer.core.progress import Progress, Silent
from quant_explorer.machine.peaks import kept
from quant_explorer.machine.peaks.kept import load_or_measure, measure_and_keep, peaks_file, read_peaks
from quant_explorer.machine.topology import available_cores, core_numbers

FOUND = Peaks(
    1,
    {"fp32": 50.0, "bf16": 10.0, "int8": 200.0},
    10.0,
    kernels={"fp32": "torch.matmul", "int8": "torch._int_mm", "gb_per_s": "copy"},
    reasons={"fp16": "no kernel"},
)


@dataclass
class Machine:
    """Answers at once, and keeps what it was asked."""

    asked: list[tuple[int, ...]] = field(default_factory=list)

    def measure(self, cores: Sequence[int], progress: Progress) -> Peaks:
        self.asked.append(tuple(cores))
        return FOUND


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(kept, "measure_peaks", machine.measure)
    return machine


def test_peaks_are_measured_once_on_the_measuring_cores(machine: Machine, tmp_path: Path) -> None:
    assert read_peaks(1, tmp_path) is None
    assert load_or_measure(1, Silent(), tmp_path) == FOUND
    assert load_or_measure(1, Silent(), tmp_path) == FOUND == read_peaks(1, tmp_path)
    assert machine.asked == [(core_numbers()[-1],)]
    measure_and_keep(1, Silent(), tmp_path)
    assert len(machine.asked) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu_model", lambda: "another"),
        ("instruction_sets", lambda: ("another",)),
        ("installed_version", lambda package: "0.0"),
        ("METHOD_VERSION", -1),
    ],
)
def test_another_machine_or_library_has_peaks_of_its_own(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    measure_and_keep(1, Silent(), tmp_path)
    monkeypatch.setattr(kept, name, value)
    assert read_peaks(1, tmp_path) is None


def test_other_threads_have_peaks_of_their_own_and_damaged_files_do_not_count(
    machine: Machine, tmp_path: Path
) -> None:
    measure_and_keep(1, Silent(), tmp_path)
    assert read_peaks(2, tmp_path) is None
    peaks_file(1, tmp_path).write_text("{}")
    assert read_peaks(1, tmp_path) is None


def test_more_threads_than_cores_are_refused(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--threads"):
        measure_and_keep(available_cores() + 1, Silent(), tmp_path)
    assert machine.asked == []


def test_peaks_that_cannot_be_kept_are_returned_all_the_same(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise StorageError("full")

    monkeypatch.setattr(kept, "write_atomically", full)
    assert load_or_measure(1, Silent(), tmp_path) == FOUND
