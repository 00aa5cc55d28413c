import os
from pathlib import Path

import filelock
import numpy as np
import pytest

from quant_explorer.core.errors import SettingsError
from quant_explorer.core.progress import Silent
from quant_explorer.datasets.cache import decode_once
from quant_explorer.datasets.kept import LIMIT_VARIABLE, list_kept, remove
from quant_explorer.datasets.source import Reading, slices
from tests.datasets.image_trees import Recorder

# 30 KB of pixels, and less than 1 KB beside them.
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 50, 20, 3), np.uint8)


def reading() -> Reading:
    return Reading(("a", "b"), np.arange(10) % 2, 8, (50, 20, 3), slices(PIXELS))


def kept_names(cache: Path) -> list[str]:
    return [kept.folder.name for kept in list_kept(cache)]


def test_what_was_used_least_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.0001")
    for age, name in enumerate(("first", "second", "third")):
        decode_once(tmp_path / name, reading, Silent())
        os.utime(tmp_path / name / "entry.json", (1000 + age, 1000 + age))
    assert kept_names(tmp_path) == ["third", "second", "first"]
    # To use one again saves it.
    decode_once(tmp_path / "first", reading, Silent())
    recorder = Recorder()
    decoded = decode_once(tmp_path / "fourth", reading, recorder)
    assert kept_names(tmp_path) == ["fourth", "first", "third"]
    assert (decoded.pixels == PIXELS).all()
    (message,) = recorder.messages
    assert f"which may hold 0.1 MB ({LIMIT_VARIABLE})" in message


def test_what_is_larger_than_the_limit_is_kept_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.00001")
    for name in ("first", "second"):
        assert (decode_once(tmp_path / name, reading, Silent()).pixels == PIXELS).all()
    assert kept_names(tmp_path) == ["second"]


def test_what_another_process_writes_is_not_removed(tmp_path: Path) -> None:
    decode_once(tmp_path / "entry", reading, Silent())
    (kept,) = list_kept(tmp_path)
    assert kept.bytes > PIXELS.size
    with filelock.FileLock(tmp_path / "entry.lock", is_singleton=False):
        assert not remove(kept)
    assert remove(kept)
    assert list_kept(tmp_path) == ()


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(SettingsError, match=f"{LIMIT_VARIABLE}={text}. Allowed: gigabytes"):
        decode_once(tmp_path / "entry", reading, Silent())
