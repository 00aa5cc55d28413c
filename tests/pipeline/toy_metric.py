"""A metric of the worker, which can import it: process and size of the files; and one of outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.contracts import Batch, Session


@dataclass(frozen=True)
class ProcessAndSize:
    """The process's number, the bytes of the files, and the number of logits of the batch."""

    name: ClassVar[str] = "process_and_size"
    unit: ClassVar[str] = "n"

    def observe(self, session: Session, folder: Path, batch: Batch) -> Sequence[float]:
        """Return the three."""
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.name != "manifest.json")
        return os.getpid(), size, session.run(batch).size


@dataclass(frozen=True)
class Right:
    """How many images are classified as labelled."""

    name: ClassVar[str] = "right"
    unit: ClassVar[str] = "n"

    def evaluate(self, logits: Batch, labels: NDArray[np.int64]) -> float:
        """Return the count."""
        return float((logits.argmax(axis=1) == labels).sum())
