"""What the cache of decoded images holds, and how it is kept below a size: what was used least goes first."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import filelock

from quant_explorer.core.errors import SettingsError

LIMIT_VARIABLE = "QUANT_EXPLORER_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0
ENTRY = "entry.json"


@dataclass(frozen=True)
class Kept:
    """The decoded images of one data set and model. `used_s` is when they were last used, in Unix time."""

    folder: Path
    bytes: int
    used_s: float


def limit_bytes() -> int:
    """Return how large the cache may be, from QUANT_EXPLORER_CACHE_GB; raises SettingsError if no number."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit_gb = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit_gb = -1.0
    if not 0 <= limit_gb < float("inf"):
        raise SettingsError(
            f"{LIMIT_VARIABLE}={text}. Allowed: gigabytes, for instance {DEFAULT_LIMIT_GB:g}."
        )
    return int(limit_gb * 1e9)


def list_kept(cache: Path) -> tuple[Kept, ...]:
    """Return what a cache folder holds of decoded images, the last used first."""
    found = []
    for entry in cache.glob(f"*/{ENTRY}"):
        try:
            size = sum(path.stat().st_size for path in entry.parent.iterdir())
            found.append(Kept(entry.parent, size, entry.stat().st_mtime))
        except FileNotFoundError:
            # Another process removes it.
            continue
    return tuple(sorted(found, key=lambda kept: -kept.used_s))


def mark_used(folder: Path) -> None:
    """Note that images are used now."""
    try:
        os.utime(folder / ENTRY)
    except OSError:
        # A cache of another user may only be read.
        return


def make_room(cache: Path, wanted_bytes: int, limit: int) -> tuple[Kept, ...]:
    """Remove what was used least until `wanted_bytes` fit below the limit, and return what was removed.

    Who has mapped images that are removed keeps them until it ends. What is wanted may be larger than the
    limit: then all else goes.
    """
    present = list_kept(cache)
    total = wanted_bytes + sum(kept.bytes for kept in present)
    removed = []
    for kept in reversed(present):
        if total <= limit:
            break
        if remove(kept):
            removed.append(kept)
            total -= kept.bytes
    return tuple(removed)


def remove(kept: Kept) -> bool:
    """Remove decoded images unless another process is writing them, and say whether they are gone."""
    lock = filelock.FileLock(kept.folder.with_name(kept.folder.name + ".lock"))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(kept.folder, ignore_errors=True)
    except (filelock.Timeout, OSError):
        return False
    return not kept.folder.exists()
