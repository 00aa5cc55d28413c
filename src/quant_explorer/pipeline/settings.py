"""What a run is asked to do. Every option of the command line that decides a figure is a field here."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import get_args

from quant_explorer.core.errors import SettingsError
from quant_explorer.core.quantspec import Target
from quant_explorer.metrics.latency import WARMUP_CALLS

DEFAULT_BATCH_SIZES = (1, 8, 32)
# How figures are taken. Raised when the same artifact on the same machine would come out different: what is
# timed, weighed or counted, warm-up, order of rounds, what is pinned to which core. Studies from before it
# was recorded have 0. Figures of two versions never stand in one table.
PROTOCOL_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What decides the weights and artifacts of a run.

    `weights` are the user's own (nothing is trained then). Subsets are numbers of images, balanced
    over classes. `engine` is PyTorch's quantized engine; empty chooses. `seed` decides splits, initial
    weights and batches, `dataloader_seed` the batches alone, where it is given. `learning_rate` is the
    peak of training the baseline; `batch_size` is also that of fine-tuning. `target` is the CPU that INT8
    ranges are chosen for: this one, or any of x86-64 (see `core/quantspec.py`).
    """

    data: str
    model: str
    data_dir: Path
    weights: Path | None = None
    seed: int = 0
    epochs: int = 5
    fine_tune_epochs: int = 1
    label_smoothing: float = 0.1
    train_subset: int | None = None
    test_subset: int | None = None
    engine: str = ""
    dataloader_seed: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.2
    calibration_images: int = 256
    target: Target = "native"

    def __post_init__(self) -> None:
        _require("--epochs", self.epochs, self.epochs >= 1, "at least 1")
        _require("--fine-tune-epochs", self.fine_tune_epochs, self.fine_tune_epochs >= 1, "at least 1")
        for option, seed in (("--seed", self.seed), ("--dataloader-seed", self.batch_seed)):
            _require(option, seed, 0 <= seed < 2**32, "0 to 4294967295")
        _require("--batch-size", self.batch_size, self.batch_size >= 1, "at least 1")
        _require("--learning-rate", self.learning_rate, 0 < self.learning_rate < inf, "more than 0")
        _require("--calibration-images", self.calibration_images, self.calibration_images >= 1, "at least 1")
        _require(
            "--label-smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "0 up to but not 1"
        )
        _require("--target", self.target, self.target in get_args(Target), " or ".join(get_args(Target)))
        for option, value in (("--train-subset", self.train_subset), ("--test-subset", self.test_subset)):
            _require(option, value, value is None or value >= 1, "at least 1")

    @property
    def batch_seed(self) -> int:
        """The seed of the order and augmentation of training images."""
        return self.seed if self.dataloader_seed is None else self.dataloader_seed


@dataclass(frozen=True)
class Protocol:
    """How variants are measured (see docs/methodology.md).

    `rounds` is the least number of interleaved rounds, with `warmup_calls` unmeasured calls before each
    variant's block; more follow until the 95 % interval of every
    ratio is within +-`precision`, or `time_limit_s` is used up (by all rounds of a group of variants;
    it also bounds the scoring of one variant), or there are `most_rounds`. `answer_timeout_s` is how long
    a worker may be silent before it is ended.
    """

    threads: int = 1
    batch_sizes: tuple[int, ...] = DEFAULT_BATCH_SIZES
    rounds: int = 10
    precision: float = 0.02
    time_limit_s: float = 120.0
    answer_timeout_s: float = 600.0
    warmup_calls: int = WARMUP_CALLS
    most_rounds: int | None = None

    def __post_init__(self) -> None:
        _require("--threads", self.threads, self.threads >= 1, "at least 1")
        _require(
            "--batch-sizes",
            self.batch_sizes,
            1 in self.batch_sizes and min(self.batch_sizes) >= 1,
            "positive numbers, 1 among them (the frontier is drawn at batch 1)",
        )
        _require("--rounds", self.rounds, self.rounds >= 2, "at least 2")
        most = self.most_rounds
        _require("most rounds", most, most is None or most >= self.rounds, f"{self.rounds} (rounds) or more")
        _require("--warmup-calls", self.warmup_calls, self.warmup_calls >= 0, "at least 0")
        _require("--precision", self.precision, 0 < self.precision < 1, "above 0 and below 1")
        _require("--time-limit", self.time_limit_s, 0 < self.time_limit_s < inf, "more than 0 seconds")


def _require(option: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise SettingsError(f"{option} {value} is out of range. Allowed: {allowed}.")
