import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import quant_explorer.datasets
from quant_explorer.core.data.dataset import Dataset
from quant_explorer.core.errors import SettingsError, UnknownNameError
from quant_explorer.datasets import SOURCES, load_dataset
from tests.datasets.image_trees import Recorder, two_classes

NO_SOURCES = {"cache", "class_names", "found", "images", "kept", "source", "splits"}


def load(
    name: str, tmp_path: Path, *, recorder: Recorder | None = None, calibration_images: int = 4
) -> Dataset:
    return load_dataset(
        name,
        data_dir=tmp_path,
        cache_dir=tmp_path / "cache",
        seed=0,
        calibration_images=calibration_images,
        progress=recorder or Recorder(),
    )


def test_every_module_of_a_source_is_registered() -> None:
    modules = {module.name for module in pkgutil.iter_modules(quant_explorer.datasets.__path__)}
    registered = set()
    for name in modules:
        members = vars(import_module(f"quant_explorer.datasets.{name}")).values()
        if any(member in (*SOURCES.values(), *map(type, SOURCES.values())) for member in hashable(members)):
            registered.add(name)
    assert modules - registered == NO_SOURCES


def hashable(members: object) -> list[object]:
    assert hasattr(members, "__iter__")
    return [member for member in members if not isinstance(member, np.ndarray)]


def test_sources_are_registered_under_their_own_name_and_described() -> None:
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.description


def test_importing_the_room_imports_nothing_heavy() -> None:
    code = "import sys, quant_explorer.datasets; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["torch", "torchvision", "mlxtend", "PIL"]
    result = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.strip() == "[]"


def test_splits_of_a_data_set_share_one_array_and_are_disjoint(tmp_path: Path) -> None:
    two_classes(tmp_path / "tree", train=50, test=10)
    dataset = load(f"imagefolder:{tmp_path / 'tree'}", tmp_path)
    splits = (dataset.calibrate, dataset.search, dataset.report)
    together = np.concatenate([split.indices for split in splits])
    assert len(np.unique(together)) == len(together) == 4 + 4 + 20
    assert np.isin(dataset.calibrate.indices, dataset.train.indices).all()
    for split in (*splits, dataset.train):
        assert split.pixels is dataset.train.pixels
        assert len(split.labels) == len(split)
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2


def test_digest_follows_the_splits(tmp_path: Path) -> None:
    name = f"imagefolder:{two_classes(tmp_path / 'tree', train=50, test=10)}"
    assert load(name, tmp_path).digest == load(name, tmp_path).digest
    assert load(name, tmp_path).digest != load(name, tmp_path, calibration_images=5).digest


def test_fewer_calibration_images_than_asked_for_is_reported(tmp_path: Path) -> None:
    recorder = Recorder()
    name = f"imagefolder:{two_classes(tmp_path / 'tree')}"
    dataset = load(name, tmp_path, recorder=recorder, calibration_images=256)
    assert len(dataset.calibrate) == len(dataset.train) == 10
    assert recorder.messages == ["Calibration uses all 10 training images there are"]


def test_a_name_that_is_unknown_lists_those_that_are_not(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown data set 'cifar'\. Did you mean 'cifar10'\?.*mnist5k"
    ):
        load("cifar", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagefolder", "path is missing. Allowed: --data imagefolder:PATH"),
        ("imagefolder:", "path is missing. Allowed: --data imagefolder:PATH"),
        ("mnist:/somewhere", "mnist takes no path. Allowed: --data mnist"),
    ],
)
def test_a_path_where_it_belongs(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(name, tmp_path)
