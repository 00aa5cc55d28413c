import itertools
import os
import shutil
import struct
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from torchvision.datasets.folder import default_loader

from quant_explorer.core.data.dataset import Dataset, InputSpec
from quant_explorer.core.errors import DataError
from quant_explorer.core.progress import Progress, Silent
from quant_explorer.datasets import DataOptions, find_dataset, load_dataset
from quant_explorer.datasets.imagefolder import ImageFolder
from quant_explorer.datasets.images.framing import frame
from tests.datasets.image_trees import Recorder, make_tree, two_classes

SOUND = {"cat": 3, "dog": 3}


def load(root: Path, cache: Path, progress: Progress | None = None) -> Dataset:
    return load_dataset(
        f"imagefolder:{root}", data_dir=root, cache_dir=cache, seed=0, progress=progress or Silent()
    )


def test_pixels_labels_and_classes_are_those_of_the_files(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    recorder = Recorder()
    dataset = load(root, tmp_path / "cache", recorder)
    assert dataset.classes == ("cat", "dog")
    assert dataset.image_shape == (3, 10, 12)
    assert dataset.flip
    assert dataset.report.labels.tolist() == [0, 0, 0, 1, 1, 1]
    expected = np.asarray(Image.open(root / "test" / "dog" / "000.png"))
    assert (dataset.report.take(np.array([3]))[0] == expected).all()
    assert len(dataset.train) + len(dataset.search) == 12
    assert recorder.bars == {"Decoding images": 18}


def test_second_load_decodes_nothing_and_a_touched_file_decodes_again(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    first = load(root, tmp_path / "cache")
    again = Recorder()
    assert load(root, tmp_path / "cache", again).digest == first.digest
    assert again.bars == {}
    Image.new("RGB", (12, 10)).save(root / "train" / "cat" / "000.png")
    changed = Recorder()
    assert load(root, tmp_path / "cache", changed).digest != first.digest
    assert changed.bars == {"Decoding images": 18}


def test_key_does_not_depend_on_where_the_tree_lies(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    key = ImageFolder().find(root, Silent())
    moved = root.rename(tmp_path / "moved")
    assert ImageFolder().find(moved, Silent()) == key
    (moved / "train" / "cat" / "000.png").rename(moved / "train" / "cat" / "zzz.png")
    assert ImageFolder().find(moved, Silent()) != key


def test_val_stands_in_for_test(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"train": SOUND, "val": {"cat": 2, "dog": 2}})
    assert len(load(root, tmp_path / "cache").report) == 4


def test_without_a_word_of_the_model_images_get_their_median_size(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 18:42] = 200
    Image.fromarray(wide).save(root / "test" / "dog" / "000.png")
    dataset = load(root, tmp_path / "cache")
    assert dataset.image_shape == (3, 10, 12)
    # Of 60 x 20 the centre 24 x 20 has the aspect of 12 x 10, and it is all 200; at its edges the
    # bilinear filter sees one dark neighbour.
    cropped = dataset.report.take(np.array([3]))[0]
    assert (cropped[:, 1:-1] == 200).all()
    assert (cropped[:, 0] == cropped[:, -1]).all()


def test_a_strip_among_photographs_of_many_sizes_decides_nothing(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree", train=10, test=10)
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        Image.new("RGB", (300 + number, 240 + number)).save(path)
    Image.new("RGB", (40, 700)).save(root / "train" / "cat" / "000.png")
    _, height, width = ImageFolder().survey(root).image_shape
    assert (width, height) == (318, 259)


def test_images_are_decoded_as_the_model_wants_them(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"train": SOUND, "test": {"cat": 1, "dog": 1}}, size=(300, 100))
    options = DataOptions(tmp_path, tmp_path / "cache", calibration_images=2)
    found = find_dataset(f"imagefolder:{root}", options, Silent())
    assert found.image_shape == (3, 100, 300)
    spec = InputSpec((1, 32, 48), (), (), resize=40, interpolation="bicubic")
    dataset = found.load(spec)
    with Image.open(root / "test" / "dog" / "000.png") as image:
        expected = np.asarray(frame(image.convert("L"), spec))
    assert (dataset.report.take(np.array([1]))[0, :, :, 0] == expected).all()
    assert dataset.framed
    assert found.load(spec).digest == dataset.digest != found.load(replace(spec, resize=41)).digest


def test_an_orientation_is_not_applied_as_torchvisions_reader_does_not(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    path = root / "test" / "dog" / "000.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.save(path, exif=exif)
    recorder = Recorder()
    decoded = load(root, tmp_path / "cache", recorder).report.take(np.array([3]))[0]
    assert (decoded == np.asarray(default_loader(str(path)))).all()
    assert any("1 of 18 images have an EXIF orientation" in line for line in recorder.messages)


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_folder_without_training_images(tmp_path: Path, name: str) -> None:
    root = make_tree(tmp_path / "tree", {name: {"cat": 20, "dog": 20}})
    options = DataOptions(tmp_path, tmp_path / "cache")
    assert not find_dataset(f"imagefolder:{root}", options, Silent()).trainable
    dataset = load(root, tmp_path / "cache")
    parts = (dataset.calibrate, dataset.search, dataset.report)
    assert [len(part) for part in (dataset.train, *parts)] == [0, 4, 1, 35]
    assert len(np.unique(np.concatenate([part.indices for part in parts]))) == 40
    assert any(f"only {name}/" in note and "no figure is of them" in note for note in dataset.notes)
    # As for a model that says mean and std: training images would be decoded later, if there were any.
    later = find_dataset(f"imagefolder:{root}", options, Silent()).load(everything=False)
    assert later.train.undecoded is None
    assert not any("training images too" in note for note in later.notes)
    assert len(later.train.take(slice(0, 5))) == 0


def test_files_left_out_are_counted_by_suffix(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    for name in ("a.heic", "b.HEIC", "c.txt", ".hidden.txt"):
        (root / "train" / "cat" / name).write_text("x")
    Image.new("RGB", (12, 10)).save(root / "train" / "cat" / "new.jfif", format="JPEG")
    recorder = Recorder()
    dataset = load(root, tmp_path / "cache", recorder)
    assert len(dataset.train) + len(dataset.search) == 13
    note = "3 files are left out, whose suffix is not that of an image: .heic 2, .txt 1"
    assert note in dataset.notes
    assert note in recorder.messages


def test_unreadable_images_are_all_named_and_can_be_left_out(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    for name in ("train/cat/001.png", "test/dog/002.png"):
        (root / name).write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        load(root, tmp_path / "cache")
    for part in ("train/cat/001.png: not a", "test/dog/002.png: not a", "--skip-unreadable"):
        assert part in str(caught.value)
    options = DataOptions(tmp_path, tmp_path / "cache", calibration_images=2, skip_unreadable=True)
    for _ in range(2):  # the second time from the cache
        dataset = find_dataset(f"imagefolder:{root}", options, Silent()).load()
        assert len(dataset.train) + len(dataset.search) == 11
        assert dataset.report.labels.tolist() == [0, 0, 0, 1, 1]
        assert dataset.notes == (
            "2 of 18 images cannot be read and are left out: train/cat/001.png, test/dog/002.png",
        )


def test_a_hostile_name_of_a_file_stays_on_its_line(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    (root / "test/dog/x\n\x1b[31m.png").write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        load(root, tmp_path / "cache")
    assert "test/dog/x\\n\\x1b[31m.png: not a readable image" in str(caught.value).splitlines()[0]
    options = DataOptions(tmp_path, tmp_path / "cache", calibration_images=2, skip_unreadable=True)
    dataset = find_dataset(f"imagefolder:{root}", options, Silent()).load()
    assert dataset.notes == ("1 of 19 images cannot be read and are left out: test/dog/x\\n\\x1b[31m.png",)


def test_a_picture_that_claims_too_many_pixels_is_refused_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    root = two_classes(tmp_path / "tree")
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (root / "train" / "cat" / "001.png").write_bytes(bomb + struct.pack(">I", 9) + b"IDAT")
    with pytest.raises(DataError, match=r"001\.png.*60000 x 60000 pixels; allowed: 178,956,970"):
        load(root, tmp_path / "cache")


def test_images_in_both_parts_are_counted(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    shutil.copy(root / "train" / "cat" / "000.png", root / "test" / "dog" / "copy.png")
    notes = load(root, tmp_path / "cache").notes
    assert notes == ("1 test images are training images too, pixel by pixel: accuracy is overstated",)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    root = two_classes(tmp_path / "tree")
    (root / "test" / "cat" / "000.png").unlink()
    Image.new("RGB", (12, 10), "white").convert(mode).save(root / "test" / "cat" / "000.tif")
    assert (load(root, tmp_path / "cache").report.take(np.array([0])) == 255).all()


def test_hidden_files_and_loose_ones_are_left_out(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    (root / "train" / "cat" / ".hidden.png").write_text("x")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "loose.png").write_text("x")
    assert len(load(root, tmp_path / "cache").report) == 6


def test_images_in_subfolders_of_a_class_count(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    (root / "test" / "cat" / "deep").mkdir()
    Image.new("RGB", (12, 10)).save(root / "test" / "cat" / "deep" / "x.PNG")
    assert len(load(root, tmp_path / "cache").report) == 7


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("allow", [False, True])
def test_a_truncated_image_names_its_file_whatever_pillow_is_configured_to(
    tmp_path: Path, suffix: str, allow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allow)
    root = two_classes(tmp_path / "tree")
    path = root / "train" / "dog" / f"broken{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (10, 12, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(DataError, match=rf"train/dog/broken\{suffix}: not a readable image"):
        load(root, tmp_path / "cache")
    assert allow is ImageFile.LOAD_TRUNCATED_IMAGES, "the host program's setting was changed"


@pytest.mark.parametrize("content", [b"", b"not an image at all", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_an_unreadable_image_names_its_file(tmp_path: Path, content: bytes) -> None:
    root = two_classes(tmp_path / "tree")
    (root / "test" / "cat" / "001.png").write_bytes(content)
    with pytest.raises(DataError, match=r"test/cat/001\.png: not a readable image"):
        load(root, tmp_path / "cache")


def test_sixteen_bits_are_refused_not_clipped(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    deep = np.full((10, 12), 40000, np.uint16)
    Image.fromarray(deep).save(root / "test" / "cat" / "001.png")
    with pytest.raises(DataError, match=r"001\.png.*more than 8 bits a channel"):
        load(root, tmp_path / "cache")


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder\. Expected: PATH/train/<class>"):
        load(tmp_path / "nowhere", tmp_path / "cache")
    root = make_tree(tmp_path / "tree", {"train": SOUND})
    with pytest.raises(DataError, match="tree/test: no such folder"):
        load(root, tmp_path / "cache")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"cat": 2}, {"cat": 2}, r"only one class \(cat\); at least 2"),
        ({"cat": 2, "dog": 0}, {"cat": 2, "dog": 1}, "train: no images for dog"),
        ({"cat": 2, "dog": 2}, {"cat": 0, "dog": 0}, "test: no images for cat, dog"),
        (
            {"cat": 2, "dog": 2},
            {"cat": 2, "cow": 1, "emu": 1},
            "different classes; only in .*train: dog; only in .*test: cow, emu",
        ),
        ({"cat": 2, "dog": 2}, {"cat": 2}, "different classes; only in .*train: dog$"),
    ],
)
def test_trees_that_are_no_classification_data_set(
    tmp_path: Path, train: dict[str, int], test: dict[str, int], message: str
) -> None:
    root = make_tree(tmp_path / "tree", {"train": train, "test": test})
    with pytest.raises(DataError, match=message):
        load(root, tmp_path / "cache")


@pytest.mark.parametrize("name", ["d\nog", os.fsdecode(b"d\xffog")])
def test_class_names_that_cannot_be_shown(tmp_path: Path, name: str) -> None:
    root = make_tree(tmp_path / "tree", {"train": {"cat": 2, name: 2}, "test": {"cat": 1, name: 1}})
    with pytest.raises(DataError, match="printable names"):
        load(root, tmp_path / "cache")


def test_no_classes_at_all(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "train").mkdir(parents=True)
    (root / "test").mkdir()
    with pytest.raises(DataError, match="train: no class folders, so no images"):
        load(root, tmp_path / "cache")


ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg.tar.gz"


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the CIFAR-10 JPEG archive is not beside the repository")
def test_a_part_of_real_cifar10(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        train = itertools.islice(
            (member for member in archive if member.name.startswith("train/") and int_name(member) < 40), 400
        )
        archive.extractall(tmp_path, members=list(train), filter="data")
    # The archive lists train/ first; test images taken from it too keep this test short.
    for folder in (tmp_path / "train").iterdir():
        (tmp_path / "test" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[30:]:
            path.rename(tmp_path / "test" / folder.name / path.name)
    dataset = load(tmp_path, tmp_path / "cache")
    assert dataset.image_shape == (3, 32, 32)
    assert len(dataset.classes) == 10
    assert np.bincount(dataset.report.labels).tolist() == [10] * 10
    # CIFAR-10's published channel means are 0.491, 0.482, 0.447.
    assert np.allclose(dataset.mean, (0.491, 0.482, 0.447), atol=0.04)


def int_name(member: tarfile.TarInfo) -> int:
    stem = Path(member.name).stem
    return int(stem) if member.isfile() else 10**6


def test_links_are_followed_but_not_in_a_circle_and_not_to_nowhere(tmp_path: Path) -> None:
    root = two_classes(tmp_path / "tree")
    (root / "train" / "cat" / "linked.png").symlink_to(root / "train" / "cat" / "001.png")
    dataset = load(root, tmp_path / "cache")
    assert len(dataset.train) + len(dataset.search) == 13

    (root / "train" / "dog" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    options = DataOptions(tmp_path, tmp_path / "cache", calibration_images=1)
    assert len(find_dataset(f"imagefolder:{root}", options, Silent()).load(everything=False).report) == 6
    (root / "test" / "dog" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"(?s)lost\.png: not a readable image.*--skip-unreadable"):
        load(root, tmp_path / "cache")
    options = DataOptions(tmp_path, tmp_path / "cache", skip_unreadable=True)
    assert len(find_dataset(f"imagefolder:{root}", options, Silent()).load().report) == 6

    (root / "test" / "dog" / "circle").symlink_to(root / "test")
    with pytest.raises(DataError, match=r"test/dog/circle: cannot be read \(it is a link to a folder"):
        load(root, tmp_path / "cache")
