import errno
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quant_explorer.core.errors import DataError, StorageError
from quant_explorer.core.progress import Silent
from quant_explorer.datasets.cache import STD_FLOOR, decode_once, default_cache_dir
from quant_explorer.datasets.source import Reading, slices

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), np.uint8)
LABELS = np.arange(50) % 4


def reading(chunks: Iterator[NDArray[np.uint8]] | None = None, labels: NDArray[np.int64] = LABELS) -> Reading:
    return Reading(("a", "b", "c", "d"), labels, 40, (6, 5, 3), chunks or slices(PIXELS, 7))


def refuse() -> Reading:
    raise AssertionError("the source was read although the cache holds it")


def test_what_was_decoded_is_mapped_without_reading_again(tmp_path: Path) -> None:
    first = decode_once(tmp_path / "entry", reading, Silent())
    second = decode_once(tmp_path / "entry", refuse, Silent())
    assert isinstance(second.pixels, np.memmap)
    assert not second.pixels.flags.writeable
    assert (second.pixels == PIXELS).all()
    assert second.labels.tolist() == LABELS.tolist()
    assert first.entry == second.entry
    assert second.entry.classes == ("a", "b", "c", "d")


def test_mean_and_std_are_of_training_images_to_six_decimals(tmp_path: Path) -> None:
    entry = decode_once(tmp_path / "entry", reading, Silent()).entry
    train = PIXELS[:40] / 255
    assert entry.mean == tuple(np.round(train.mean(axis=(0, 1, 2)), 6))
    assert entry.std == tuple(np.round(train.std(axis=(0, 1, 2)), 6))


def test_a_constant_channel_has_the_floor_as_std(tmp_path: Path) -> None:
    grey = np.full((50, 6, 5, 3), 7, np.uint8)
    entry = decode_once(tmp_path / "entry", lambda: reading(slices(grey)), Silent()).entry
    assert entry.std == (round(STD_FLOOR, 6),) * 3


def test_digest_covers_pixels_labels_and_split_but_not_chunking(tmp_path: Path) -> None:
    other_pixels = PIXELS.copy()
    other_pixels[49, 0, 0, 0] ^= 1
    other_labels = LABELS.copy()
    other_labels[0] = 3
    readings = [
        reading(),
        reading(slices(PIXELS, 50)),
        reading(slices(other_pixels)),
        reading(labels=other_labels),
        Reading(("a", "b", "c", "d"), LABELS, 39, (6, 5, 3), slices(PIXELS)),
    ]
    digests = []
    for number, case in enumerate(readings):
        decoded = decode_once(tmp_path / str(number), lambda case=case: case, Silent())  # type: ignore[misc]
        digests.append(decoded.entry.digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def broken_chunks(error: BaseException) -> Iterator[NDArray[np.uint8]]:
    yield PIXELS[:20]
    raise error


@pytest.mark.parametrize("error", [DataError("cat.png"), KeyboardInterrupt()])
def test_an_interrupted_decoding_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        decode_once(tmp_path / "entry", lambda: reading(broken_chunks(error)), Silent())
    assert not (tmp_path / "entry").exists()
    assert not (tmp_path / "entry.part").exists()
    assert (decode_once(tmp_path / "entry", reading, Silent()).pixels == PIXELS).all()


def decode_then_die(folder: Path) -> None:
    def chunks() -> Iterator[NDArray[np.uint8]]:
        yield PIXELS[:20]
        os.kill(os.getpid(), 9)

    decode_once(folder, lambda: reading(chunks()), Silent())


def test_a_killed_process_leaves_no_half_cache(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=decode_then_die, args=(tmp_path / "entry",))
    process.start()
    process.join(120)
    assert process.exitcode == -9
    assert not (tmp_path / "entry").exists()
    assert (tmp_path / "entry.part").exists(), "it was not killed in the middle"
    assert (decode_once(tmp_path / "entry", reading, Silent()).pixels == PIXELS).all()
    assert not (tmp_path / "entry.part").exists()


@pytest.mark.parametrize("file", ["pixels.npy", "labels.npy", "entry.json"])
def test_a_damaged_cache_is_decoded_again(tmp_path: Path, file: str) -> None:
    decode_once(tmp_path / "entry", reading, Silent())
    path = tmp_path / "entry" / file
    os.truncate(path, path.stat().st_size // 2)
    assert (decode_once(tmp_path / "entry", reading, Silent()).pixels == PIXELS).all()
    decode_once(tmp_path / "entry", refuse, Silent())


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match=r"No space left on device.*XDG_CACHE_HOME"):
        decode_once(tmp_path / "entry", lambda: reading(broken_chunks(full)), Silent())
    assert not (tmp_path / "entry").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quant_explorer.datasets.cache.PIXELS", "/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        decode_once(tmp_path / "entry", reading, Silent())


def test_a_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="XDG_CACHE_HOME"):
        decode_once(tmp_path / "file" / "entry", reading, Silent())


@pytest.mark.parametrize(
    "wrong",
    [
        reading(slices(PIXELS[:-1])),
        reading(slices(np.concatenate([PIXELS, PIXELS]))),
        reading(labels=LABELS + 1),
        reading(labels=LABELS - 1),
    ],
    ids=["too few images", "too many images", "label too large", "label negative"],
)
def test_files_that_do_not_fit_together(tmp_path: Path, wrong: Reading) -> None:
    with pytest.raises(DataError, match="do not fit together"):
        decode_once(tmp_path / "entry", lambda: wrong, Silent())
    assert not (tmp_path / "entry").exists()


def decode_while_another_waits(entry: Path, held: Path, waiting: Path) -> None:
    def chunks() -> Iterator[NDArray[np.uint8]]:
        held.touch()
        wait_for(waiting)
        yield PIXELS

    decode_once(entry, lambda: reading(chunks()), Silent())


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@dataclass(frozen=True)
class Signal(Silent):
    """A Progress that makes a file when something is said."""

    path: Path

    def say(self, message: str) -> None:
        self.path.write_text(message)


def test_a_second_process_waits_and_uses_what_the_first_decoded(tmp_path: Path) -> None:
    entry, held, waiting = tmp_path / "entry", tmp_path / "held", tmp_path / "waiting"
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=decode_while_another_waits, args=(entry, held, waiting))
    process.start()
    wait_for(held)
    decoded = decode_once(entry, refuse, Signal(waiting))
    process.join(120)
    assert process.exitcode == 0
    assert (decoded.pixels == PIXELS).all()
    assert "another process" in waiting.read_text()


def test_default_cache_dir_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "quant-explorer"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_dir() == tmp_path / ".cache" / "quant-explorer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == tmp_path / ".cache" / "quant-explorer"


def test_no_home_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        default_cache_dir()
