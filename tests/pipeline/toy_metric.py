"""A metric that a worker can import: it says which process it was asked in, and how large the files are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
