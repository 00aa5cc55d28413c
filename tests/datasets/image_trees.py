"""For the tests of this room: small image trees, and a Progress that remembers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from quant_explorer.core.progress import Task


@dataclass
class Recorder:
    """The lines said, and how far each bar came."""

    messages: list[str] = field(default_factory=list)
    bars: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Task]:
        self.bars.setdefault(label, 0)
        yield _RecordedTask(self, label)

    def say(self, message: str) -> None:
        self.messages.append(message)


@dataclass
class _RecordedTask:
    recorder: Recorder
    label: str

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.recorder.bars[self.label] += amount


def make_tree(
    root: Path, counts: Mapping[str, Mapping[str, int]], *, size: tuple[int, int] = (12, 10)
) -> Path:
    """Write `counts[part][class]` random PNG images of `size` (width, height) below `root`."""
    stream = np.random.default_rng(0)
    for part, classes in counts.items():
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = stream.integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:03}.png")
    return root


def two_classes(root: Path, train: int = 6, test: int = 3) -> Path:
    """Write a sound tree of the classes cat and dog."""
    return make_tree(root, {"train": {"cat": train, "dog": train}, "test": {"cat": test, "dog": test}})
