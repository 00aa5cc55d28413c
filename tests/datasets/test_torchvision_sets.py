import errno
import functools
import gzip
import hashlib
import http.server
import struct
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from torchvision.datasets import utils

from quant_explorer.core.data.dataset import Dataset
from quant_explorer.core.errors import DataError, StorageError
from quant_explorer.datasets import load_dataset
from tests.datasets.image_trees import Recorder

STREAM = np.random.default_rng(0)
IMAGES = {"train": STREAM.integers(0, 256, (60, 28, 28), np.uint8), "t10k": np.zeros((20, 28, 28), np.uint8)}


def write_idx(folder: Path) -> None:
    """Write IDX files as the MNIST page describes them: magic number, sizes, bytes."""
    folder.mkdir(parents=True)
    for part, images in IMAGES.items():
        labels = (np.arange(len(images)) % 10).astype(np.uint8)
        for stem, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{stem}-ubyte").write_bytes(header + array.tobytes())


def load(name: str, data_dir: Path, recorder: Recorder | None = None) -> Dataset:
    return load_dataset(
        name, data_dir=data_dir, cache_dir=data_dir / "cache", seed=0, progress=recorder or Recorder()
    )


@pytest.mark.parametrize(
    ("name", "folder", "flip", "first_class"),
    [("mnist", "MNIST", False, "0"), ("fashion-mnist", "FashionMNIST", True, "T-shirt/top")],
)
def test_files_that_are_there_are_read_without_a_download(
    tmp_path: Path, name: str, folder: str, flip: bool, first_class: str
) -> None:
    write_idx(tmp_path / folder / "raw")
    recorder = Recorder()
    dataset = load(name, tmp_path, recorder)
    assert not any("Downloading" in line for line in recorder.messages)
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.flip is flip
    assert dataset.classes[0] == first_class
    assert len(dataset.classes) == 10
    assert len(dataset.train) + len(dataset.search) == 60
    assert (dataset.train.pixels[:60, :, :, 0] == IMAGES["train"]).all()
    assert dataset.report.labels.tolist() == [*range(10), *range(10)]
    again = Recorder()
    assert load(name, tmp_path, again).digest == dataset.digest
    assert f"Reading {name}" not in again.bars


def test_a_damaged_file_names_its_folder(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0")
    with pytest.raises(DataError, match=r"MNIST/raw: not the files of mnist .*delete this folder"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion-mnist"])
@pytest.mark.parametrize(
    "failure", [urllib.error.URLError("no route to host"), TimeoutError("timed out"), RuntimeError("404")]
)
def test_a_failed_download_tells_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, failure: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    own_bar = utils.tqdm
    recorder = Recorder()
    with pytest.raises(DataError) as caught:
        load(name, tmp_path, recorder)
    message = str(caught.value)
    file, folder, archive = {
        "cifar10": ("data_batch_5", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
        "mnist": ("t10k-labels-idx1-ubyte", "MNIST/raw", "MNIST/raw/t10k-labels-idx1-ubyte.gz"),
        "fashion-mnist": ("t10k-labels-idx1-ubyte", "FashionMNIST/raw", "train-images-idx3-ubyte.gz"),
    }[name]
    for part in (file, str(tmp_path / folder), archive, "--data mnist5k", "--data imagefolder:PATH"):
        assert part in message
    assert caught.value.__cause__ is not None
    assert recorder.messages == [f"Downloading {name} to {tmp_path / folder}"]
    assert utils.tqdm is own_bar, "torchvision's bar was not put back"


def test_a_full_disk_while_downloading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(StorageError, match=r"cifar10 cannot be stored .*No space left"):
        load("cifar10", tmp_path)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal free for what the test looks at."""


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the small IDX files, gzipped, on this machine, in the place of MNIST's mirrors."""
    folder = tmp_path / "origin"
    write_idx(folder)
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in folder.iterdir()]
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        monkeypatch.setattr(
            torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"]
        )
        monkeypatch.setenv("no_proxy", "*")
        yield folder
        server.shutdown()


def test_a_download_reports_to_progress_and_not_to_the_terminal(
    tmp_path: Path, origin: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    dataset = load("mnist", tmp_path / "data", recorder)
    assert len(dataset.report) == 20
    assert recorder.bars["Downloading mnist"] == sum(path.stat().st_size for path in origin.iterdir())
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_download_that_is_not_what_was_asked_for(tmp_path: Path, origin: Path) -> None:
    path = origin / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"data set mnist: not in .* and cannot be downloaded"):
        load("mnist", tmp_path / "data")
