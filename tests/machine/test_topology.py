import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from quant_explorer.core.errors import SettingsError
from quant_explorer.machine.topology import (
    available_cores,
    core_numbers,
    explain_quota,
    idle_cores,
    measuring_cores,
    physical_cores,
)
from tests.machine.systems import write_cgroup, write_topology

Allow = Callable[[Iterable[int]], None]
# Hardware threads 0 and 4 are one physical core, and so on: how Linux counts on most servers.
SPLIT = {number: f"{number % 4},{number % 4 + 4}" for number in range(8)}
# Hardware threads 0 and 1 are one physical core, and so on.
ADJACENT = {number: f"{number // 2 * 2}-{number // 2 * 2 + 1}" for number in range(8)}


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Allow:
    """Let this process use these hardware threads."""

    def set_affinity(numbers: Iterable[int]) -> None:
        usable = set(numbers)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable, raising=False)

    return set_affinity


def test_cores_are_those_this_process_may_use(allow: Allow, tmp_path: Path) -> None:
    allow({5, 2, 9})
    assert core_numbers() == (2, 5, 9)
    assert available_cores(tmp_path) == 3
    assert measuring_cores(2, tmp_path) == (5, 9)
    assert [idle_cores(threads, tmp_path) for threads in (1, 2, 3)] == [((5,), (2,)), (), ()]
    with pytest.raises(SettingsError, match=r"--threads 4 is out of range\. Allowed: 1 to 3 \(cores here\)"):
        measuring_cores(4, tmp_path)


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_two_workers_never_share_a_physical_core(allow: Allow, tmp_path: Path, name: str) -> None:
    allow(range(8))
    write_topology(tmp_path, SPLIT, name=name)
    assert physical_cores(tmp_path) == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert measuring_cores(1, tmp_path) == (7,)
    assert idle_cores(1, tmp_path) == ((6,), (5,), (4,))
    assert measuring_cores(2, tmp_path) == (6, 7)
    assert idle_cores(2, tmp_path) == ((4, 5),)
    assert idle_cores(3, tmp_path) == ()


def test_siblings_may_have_neighbouring_numbers(allow: Allow, tmp_path: Path) -> None:
    allow(range(8))
    write_topology(tmp_path, ADJACENT)
    assert measuring_cores(2, tmp_path) == (5, 7)
    assert idle_cores(2, tmp_path) == ((1, 3),)


def test_one_worker_gets_siblings_when_physical_cores_run_out(allow: Allow, tmp_path: Path) -> None:
    allow({0, 1, 4, 5})
    write_topology(tmp_path, SPLIT)
    assert measuring_cores(3, tmp_path) == (1, 4, 5)
    assert measuring_cores(4, tmp_path) == (0, 1, 4, 5)
    assert idle_cores(3, tmp_path) == ()


def test_a_sibling_that_this_process_may_not_use_does_not_count(allow: Allow, tmp_path: Path) -> None:
    allow({1, 3, 4})
    write_topology(tmp_path, SPLIT)
    assert physical_cores(tmp_path) == ((1,), (3,), (4,))


@pytest.mark.parametrize(
    ("quota", "cores", "explained"),
    [
        ("max 100000", 8, None),
        ("800000 100000", 8, None),
        ("250000 100000", 2, "of 8 cores, the CPU quota of 2.5 leaves 2"),
        ("50000 100000", 1, "the CPU quota of 0.5 cores stops a thread for a part of each period"),
    ],
)
def test_a_quota_leaves_whole_cores(
    allow: Allow, tmp_path: Path, quota: str, cores: int, explained: str | None
) -> None:
    allow(range(8))
    write_cgroup(tmp_path, "/app", {"cpu.max": quota})
    assert available_cores(tmp_path) == cores
    assert len(measuring_cores(cores, tmp_path)) == cores
    assert len(idle_cores(1, tmp_path)) == cores - 1
    reason = explain_quota(tmp_path)
    assert reason is explained or str(reason).startswith(str(explained))
    with pytest.raises(SettingsError, match=rf"Allowed: 1 to {cores} \({explained or 'cores here'}"):
        measuring_cores(cores + 1, tmp_path)
