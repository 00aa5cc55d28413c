from pathlib import Path

import numpy as np
import pytest

from quant_explorer.core.errors import DataError, SettingsError
from quant_explorer.core.progress import Silent
from quant_explorer.datasets import DataOptions, find_dataset, read_classes
from quant_explorer.datasets.class_names import map_classes
from tests.datasets.image_trees import Recorder, make_tree

NUMBERS = {str(number): 2 for number in range(12)}


def options(tmp_path: Path, **given: object) -> DataOptions:
    return DataOptions(tmp_path, tmp_path / "cache", calibration_images=2, **given)  # type: ignore[arg-type]


def test_numbers_are_sorted_as_names_with_a_warning_and_as_numbers_when_asked(tmp_path: Path) -> None:
    name = f"imagefolder:{make_tree(tmp_path / 'tree', {'train': NUMBERS, 'test': NUMBERS})}"
    recorder = Recorder()
    by_name = find_dataset(name, options(tmp_path), recorder).load()
    assert by_name.classes[:4] == ("0", "1", "10", "11")
    assert any("--class-order number" in line for line in recorder.messages)
    by_number = find_dataset(name, options(tmp_path, class_order="number"), Silent()).load()
    assert by_number.classes == tuple(map(str, range(12)))
    assert np.bincount(by_number.report.labels).tolist() == [2] * 12
    names = [[data.classes[label] for label in data.report.labels] for data in (by_name, by_number)]
    assert names[0] == names[1]
    assert by_name.digest != by_number.digest
    assert by_number.notes == ()


def test_names_that_are_no_numbers_have_no_order_as_numbers(tmp_path: Path) -> None:
    name = f"imagefolder:{make_tree(tmp_path / 'tree', {'val': {'cat': 4, '7': 4}})}"
    with pytest.raises(SettingsError, match=r"not all classes are numbers \(cat\)"):
        find_dataset(name, options(tmp_path, class_order="number"), Silent()).load()


def test_a_list_maps_folders_to_outputs(tmp_path: Path) -> None:
    name = f"imagefolder:{make_tree(tmp_path / 'tree', {'val': {'cat': 20, 'dog': 20}})}"
    (tmp_path / "names.txt").write_text("emu\ndog\ncow\ncat\n")
    outputs = read_classes(tmp_path / "names.txt")
    dataset = find_dataset(name, options(tmp_path, outputs=outputs), Silent()).load()
    assert dataset.classes == ("emu", "dog", "cow", "cat")
    assert set(dataset.report.labels.tolist()) == {1, 3}


def test_a_list_that_lacks_a_class_names_it(tmp_path: Path) -> None:
    name = f"imagefolder:{make_tree(tmp_path / 'tree', {'val': {'cat': 4, 'dog': 4}})}"
    with pytest.raises(DataError, match="the list of classes does not hold dog, which the data set has"):
        find_dataset(name, options(tmp_path, outputs=("Dog", "cat")), Silent()).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat\n\ndog\n", "line 2: no name"),
        ("", "line 1: no name"),
        ("cat\ndog\ncat\n", "line 3: 'cat' is there already, in line 1"),
    ],
)
def test_a_file_that_is_no_list_of_classes(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "names.txt")


def test_a_list_from_windows_names_folders_from_macos(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeffdog\r\ncafé\r\n\r\n".encode())
    outputs = read_classes(tmp_path / "names.txt")
    assert outputs == ("dog", "café")
    assert map_classes(["cafe\u0301", "dog"], outputs, "the list").tolist() == [1, 0]


def test_text_of_another_encoding_is_no_list_of_classes(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog\ncat\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"names\.txt: not text in UTF-8"):
        read_classes(tmp_path / "names.txt")
