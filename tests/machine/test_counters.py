from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.machine.counters import PackageCounters, difference_uj, find_packages, unavailable

RANGE_UJ = 1_000_000


def counter(root: Path, folder: str, name: str, energy_uj: int = 0) -> Path:
    """A counter as the kernel shows it."""
    made = root / folder
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (made / "energy_uj").write_text(f"{energy_uj}\n")
    return made


def test_packages_count_and_their_parts_and_the_platform_do_not(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", "package-0")
    counter(tmp_path, "intel-rapl:0:0", "core")
    counter(tmp_path, "intel-rapl:1", "package-1")
    counter(tmp_path, "intel-rapl:2", "psys")
    counter(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert [package.folder.name for package in find_packages(tmp_path)] == ["intel-rapl:0", "intel-rapl:1"]


def test_energy_is_the_sum_of_the_packages(tmp_path: Path) -> None:
    first = counter(tmp_path, "intel-rapl:0", "package-0", energy_uj=100)
    second = counter(tmp_path, "intel-rapl:1", "package-1", energy_uj=5_000)
    counters = PackageCounters(find_packages(tmp_path))
    before = counters.read()
    assert counters.joules_since(before) == 0.0
    (first / "energy_uj").write_text("400\n")
    (second / "energy_uj").write_text("5200\n")
    assert counters.joules_since(before) == pytest.approx(0.0005)


def test_a_counter_that_starts_again_is_followed(tmp_path: Path) -> None:
    folder = counter(tmp_path, "intel-rapl:0", "package-0", energy_uj=990_000)
    counters = PackageCounters(find_packages(tmp_path))
    before = counters.read()
    (folder / "energy_uj").write_text("10000\n")
    assert counters.joules_since(before) == pytest.approx(0.02)
    assert difference_uj(990_000, 10_000, RANGE_UJ) == 20_000


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", "psys")
    reason = unavailable(tmp_path)
    assert reason is not None
    assert "RAPL" in reason


def test_a_counter_for_root_only_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = counter(tmp_path, "intel-rapl:0", "package-0")
    assert unavailable(tmp_path) is None
    read_text = Path.read_text

    def refuse(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert unavailable(tmp_path) == f"{folder / 'energy_uj'} may only be read by root"


def test_a_damaged_counter_is_a_reason(tmp_path: Path) -> None:
    (counter(tmp_path, "intel-rapl:0", "package-0") / "energy_uj").write_text("none")
    reason = unavailable(tmp_path)
    assert reason is not None
    assert "cannot be read" in reason
