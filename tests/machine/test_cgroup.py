from pathlib import Path

import pytest

from quant_explorer.machine.cgroup import cpu_quota, free_memory_bytes, memory_limit_bytes
from tests.machine.systems import write, write_cgroup, write_cgroups_v1

UNLIMITED_V1 = "9223372036854771712"


def test_limits_of_this_group(tmp_path: Path) -> None:
    files = {"memory.max": "1000", "memory.current": "300", "cpu.max": "150000 100000"}
    write_cgroup(tmp_path, "/app", files)
    assert memory_limit_bytes(tmp_path) == 1000
    assert free_memory_bytes(tmp_path) == 700
    assert cpu_quota(tmp_path) == 1.5


def test_cached_files_are_free_memory(tmp_path: Path) -> None:
    stat = "anon 200\nactive_file 70\ninactive_file 500"
    write_cgroup(tmp_path, "/app", {"memory.max": "1000", "memory.current": "800", "memory.stat": stat})
    assert free_memory_bytes(tmp_path) == 700


def test_the_smallest_limit_of_all_groups_above_binds(tmp_path: Path) -> None:
    files = {
        "slice/memory.max": "4000",
        "slice/memory.current": "3900",
        "slice/app/memory.max": "5000",
        "slice/app/memory.current": "10",
        "slice/app/run/memory.max": "max",
        "slice/cpu.max": "50000 100000",
        "slice/app/run/cpu.max": "400000 100000",
    }
    write_cgroup(tmp_path, "/slice/app/run", files)
    assert memory_limit_bytes(tmp_path) == 4000
    assert free_memory_bytes(tmp_path) == 100
    assert cpu_quota(tmp_path) == 0.5


def test_a_group_beside_this_one_does_not_count(tmp_path: Path) -> None:
    write_cgroup(tmp_path, "/app", {"other/memory.max": "10", "other/cpu.max": "1000 100000"})
    assert (memory_limit_bytes(tmp_path), cpu_quota(tmp_path)) == (None, None)


@pytest.mark.parametrize("group", ["/docker/abc", "/", "/../elsewhere"])
def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path, group: str) -> None:
    """Whatever it is told its path is: outside of a namespace of its own that is the host's."""
    shown = "/docker/abc" if group == "/docker/abc" else "/"
    write_cgroup(tmp_path, group, {}, shown=shown)
    write(tmp_path, "sys/fs/cgroup/memory.max", "1000\n")
    assert memory_limit_bytes(tmp_path) == 1000


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED_V1,
        "memory/docker/abc/memory.limit_in_bytes": "1000",
        "memory/docker/abc/memory.usage_in_bytes": "900",
        "memory/docker/abc/memory.stat": "inactive_file 1\ntotal_inactive_file 250",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "25000",
        "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "50000",
    }
    write_cgroups_v1(tmp_path, "/docker/abc", files)
    assert memory_limit_bytes(tmp_path) == 1000
    assert free_memory_bytes(tmp_path) == 350
    assert cpu_quota(tmp_path) == 0.5


def test_no_limit_is_none(tmp_path: Path) -> None:
    write_cgroup(tmp_path / "v2", "/app", {"memory.max": "max", "cpu.max": "max 100000"})
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED_V1,
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    write_cgroups_v1(tmp_path / "v1", "/", files)
    for root in (tmp_path / "v2", tmp_path / "v1", tmp_path / "without-cgroups"):
        assert (memory_limit_bytes(root), free_memory_bytes(root), cpu_quota(root)) == (None, None, None)


def test_what_cannot_be_read_limits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cgroup(tmp_path, "/app", {"memory.max": "1000", "memory.current": "x", "cpu.max": "half"})
    assert (free_memory_bytes(tmp_path), cpu_quota(tmp_path)) == (1000, None)

    def refuse(path: Path) -> str:
        if path.name == "memory.max":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", refuse)
    assert memory_limit_bytes(tmp_path) is None
