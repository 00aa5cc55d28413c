from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from quant_explorer.machine.memory import ResidentMemory, available_bytes, total_bytes
from tests.machine.systems import write_cgroup

MB = 2**20


@pytest.mark.parametrize(
    ("limit", "usage", "total", "available"),
    [
        ("max", 100, 1000, 600),
        ("5000", 100, 1000, 600),
        ("800", 300, 800, 500),
        ("500", 600, 500, 0),
    ],
)
def test_a_limit_counts_where_it_is_less_than_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, usage: int, total: int, available: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=600))
    write_cgroup(tmp_path, "/app", {"memory.max": limit, "memory.current": str(usage)})
    assert (total_bytes(tmp_path), available_bytes(tmp_path)) == (total, available)


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """What the kernel shows of a process."""
    status = "Name:\tpython\nVmPeak:\t    9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n"
    (tmp_path / "status").write_text(status)
    return tmp_path


def test_status_is_read_in_kilobytes(process: Path) -> None:
    assert ResidentMemory(process).read_bytes() == 1 * MB
    assert ResidentMemory(process).read_peak_bytes() == 2 * MB


def test_a_kernel_without_the_mark_is_a_reason(process: Path) -> None:
    assert ResidentMemory(process).unavailable() is None
    assert (process / "clear_refs").read_text() == "5"
    (process / "status").write_text("VmRSS:\t   1024 kB\n")
    reason = ResidentMemory(process).unavailable()
    assert reason is not None
    assert "does not offer a resettable high-water mark" in reason
    assert "VmHWM" in reason
    assert "No such file" in str(ResidentMemory(process / "none").unavailable())
