from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from quant_explorer.core.data.dataset import Dataset, InputSpec
from quant_explorer.core.errors import DataError
from quant_explorer.core.progress import Silent
from quant_explorer.datasets import DataOptions, FoundData, find_dataset
from quant_explorer.datasets.images import decoding
from quant_explorer.datasets.images.decoding import decode
from quant_explorer.datasets.images.framing import frame
from tests.datasets.image_trees import Recorder, two_classes

SPEC = InputSpec((3, 8, 8), (), ())


def find(root: Path, cache: Path, progress: Recorder | None = None, calibration: int = 4) -> FoundData:
    options = DataOptions(root, cache, calibration_images=calibration)
    return find_dataset(f"imagefolder:{root}", options, progress or Recorder())


def test_training_images_are_decoded_when_they_are_taken(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree", train=50, test=6)
    everything = find(root, tmp_path / "all").load(SPEC)
    recorder = Recorder()
    dataset = find(root, tmp_path / "needed", recorder).load(SPEC, everything=False)
    # 4 to calibrate, 4 held out for decisions, and the test images.
    assert recorder.bars == {"Decoding images": 4 + 4 + 12}
    for name in ("calibrate", "search", "report"):
        part, whole = getattr(dataset, name), getattr(everything, name)
        assert part.labels.tolist() == whole.labels.tolist()
        assert (part.take(slice(None)) == whole.take(slice(None))).all()
    assert dataset.image_shape == (3, 8, 8)
    assert len(dataset.train) == len(everything.train) == 96
    assert recorder.bars == {"Decoding images": 20}
    assert (dataset.train.take(slice(None)) == everything.train.take(slice(None))).all()
    assert dataset.train.labels.tolist() == everything.train.labels.tolist()
    assert recorder.bars == {"Decoding images": 20 + 96}


def test_a_training_image_counts_for_what_is_trained_alone(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree", train=50, test=6)
    before = find(root, tmp_path / "cache").load(SPEC, everything=False)
    digest = undecoded_digest(before)
    used = {image.tobytes() for part in (before.calibrate, before.search) for image in part.take(slice(None))}
    files = sorted((root / "train").rglob("*.png"))
    trained = next(path for path in files if framed(path).tobytes() not in used)
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(trained)
    after = find(root, tmp_path / "cache").load(SPEC, everything=False)
    assert after.digest == before.digest
    assert undecoded_digest(after) != digest
    elsewhere = find(root, tmp_path / "other").load(SPEC, everything=False)
    assert undecoded_digest(elsewhere) == undecoded_digest(after)


def undecoded_digest(dataset: Dataset) -> str:
    assert dataset.train.undecoded is not None
    return dataset.train.undecoded.digest


def framed(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(frame(image, SPEC))


def test_copies_of_test_images_are_counted_without_decoding(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree", train=50, test=6)
    test = sorted((root / "test" / "cat").iterdir())
    for number, source in enumerate(test[:2]):
        (root / "train" / "dog" / f"{number:03}.png").write_bytes(source.read_bytes())
    dataset = find(root, tmp_path / "cache").load(SPEC, everything=False)
    assert "2 test images are training images too, byte by byte: accuracy is overstated" in dataset.notes


def test_a_damaged_training_image_matters_when_it_is_trained_on(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree", train=50, test=6)
    dataset = find(root, tmp_path / "cache").load(SPEC, everything=False)
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"and 76 more\n.*--skip-unreadable"):
        dataset.train.take(slice(None))


def test_few_images_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded ahead of who writes it does not grow with the number of images."""
    started: list[int] = []

    def note(paths: Sequence[Path], spec: InputSpec) -> decoding._Batch:
        started.append(len(paths))
        return decoding._Batch(np.zeros((len(paths), 8, 8, 3), np.uint8), np.ones(len(paths), bool), (), 0)

    monkeypatch.setattr(decoding, "_decode_job", note)
    monkeypatch.setattr(decoding, "_JOB_BYTES", 10 * 8 * 8 * 3)
    chunks = decode([tmp_path / "cat.png"] * 100_000, SPEC, Silent())
    first = next(chunks)
    assert len(first) == 10
    ahead = sum(started)
    assert 10 <= ahead <= 10 * (2 * decoding.decoding_threads() + 2)
    chunks.close()  # type: ignore[attr-defined]
    assert sum(started) <= ahead + 10 * decoding.decoding_threads()
