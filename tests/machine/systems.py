"""Made-up trees of what Linux shows of a machine below /proc and /sys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MOUNT_V2 = "30 23 0:26 {shown} /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
MOUNT_V1 = "35 31 0:32 {shown} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}"


def write_cgroup(root: Path, group: str, files: Mapping[str, str], *, shown: str = "/") -> None:
    """Put this process into `group` of version 2, of whose hierarchy what is below `shown` is mounted.

    `files` are paths from the mount, or from the group for a bare name.
    """
    write(root, "proc/self/cgroup", f"0::{group}\n")
    mounts = ["22 1 8:1 / / rw - ext4 /dev/sda rw", MOUNT_V2.format(shown=shown)]
    write(root, "proc/self/mountinfo", "\n".join([*mounts, ""]))
    own = group.removeprefix(shown).strip("/")
    for name, text in files.items():
        write(root, f"sys/fs/cgroup/{name if '/' in name else f'{own}/{name}'}", f"{text}\n")


def write_cgroups_v1(root: Path, group: str, files: Mapping[str, str], *, shown: str = "/") -> None:
    """Put this process into `group` of the controllers memory and cpu; `files` begin with the controller."""
    names = ("memory", "cpu,cpuacct")
    members = [f"{number}:{name}:{group}" for number, name in enumerate(names, start=2)]
    write(root, "proc/self/cgroup", "\n".join([*members, "0::/", ""]))
    mounts = [MOUNT_V1.format(shown=shown, name=name) for name in names]
    write(root, "proc/self/mountinfo", "\n".join([*mounts, ""]))
    for name, text in files.items():
        write(root, f"sys/fs/cgroup/{name}", f"{text}\n")


def write_topology(root: Path, siblings: Mapping[int, str], *, name: str = "thread_siblings_list") -> None:
    """Write the hardware threads that share a physical core with each, as Linux lists them."""
    for number, text in siblings.items():
        write(root, f"sys/devices/system/cpu/cpu{number}/topology/{name}", f"{text}\n")


def write(root: Path, name: str, text: str) -> None:
    """Write one file below `root`."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
