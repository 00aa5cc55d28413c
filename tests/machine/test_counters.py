from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.machine.counters import difference_uj, find_packages, measure_energy, unavailable

RANGE_UJ = 1_000_000


def counter(root: Path, folder: str, name: str, energy_uj: int = 0) -> Path:
    """A counter as the kernel shows it."""
    made = root / folder
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (made / "energy_uj").write_text(f"{energy_uj}\n")
    return made


def draw(folder: Path, uj: int) -> Callable[[], None]:
    """A call that takes so much, on a counter that starts again as the real one does."""

    def call() -> None:
        before = int((folder / "energy_uj").read_text())
        (folder / "energy_uj").write_text(f"{(before + uj) % RANGE_UJ}\n")

    return call


def test_packages_count_and_their_parts_and_the_platform_do_not(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", "package-0")
    counter(tmp_path, "intel-rapl:0:0", "core")
    counter(tmp_path, "intel-rapl:1", "package-1")
    counter(tmp_path, "intel-rapl:2", "psys")
    counter(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert [package.folder.name for package in find_packages(tmp_path)] == ["intel-rapl:0", "intel-rapl:1"]


def test_energy_is_the_sum_of_the_packages_by_block(tmp_path: Path) -> None:
    first = draw(counter(tmp_path, "intel-rapl:0", "package-0"), 300)
    second = draw(counter(tmp_path, "intel-rapl:1", "package-1", energy_uj=5_000), 200)
    blocks = measure_energy(lambda: (first(), second()), blocks=3, min_block_s=0.0, root=tmp_path)
    assert [block.calls for block in blocks] == [1, 1, 1]
    assert [block.energy_j for block in blocks] == pytest.approx([0.0005] * 3)
    assert all(block.duration_s > 0 for block in blocks)


def test_a_block_repeats_calls_for_its_time(tmp_path: Path) -> None:
    call = draw(counter(tmp_path, "intel-rapl:0", "package-0"), 1)
    (block,) = measure_energy(call, blocks=1, min_block_s=0.02, root=tmp_path)
    assert block.duration_s >= 0.02
    assert block.calls > 1
    assert block.energy_j == pytest.approx(block.calls / 1e6)


def test_a_counter_that_starts_again_is_followed(tmp_path: Path) -> None:
    call = draw(counter(tmp_path, "intel-rapl:0", "package-0", energy_uj=RANGE_UJ - 900), 400)
    blocks = measure_energy(call, blocks=3, min_block_s=0.0, root=tmp_path)
    assert [block.energy_j for block in blocks] == pytest.approx([0.0004] * 3)
    assert difference_uj(990_000, 10_000, RANGE_UJ) == 20_000


def test_a_counter_that_stands_still_is_no_energy_of_zero(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", "package-0")
    with pytest.raises(UnsupportedError, match="did not move"):
        measure_energy(lambda: None, blocks=1, min_block_s=0.0, root=tmp_path)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", "psys")
    reason = unavailable(tmp_path)
    assert reason is not None
    assert "RAPL" in reason
    with pytest.raises(UnsupportedError, match="RAPL"):
        measure_energy(lambda: None, root=tmp_path)


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
