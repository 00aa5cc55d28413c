"""Fine-tuning in FP32: the control of whatever else was fine-tuned for as long.

Same images, epochs, schedule, learning rate and seed as quantization-aware training, so that the
difference between the two is quantization and not training. The schedule is the one-cycle of the
run's own training loop.
Source: Smith and Topin, "Super-Convergence", 2018.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from quant_explorer.core.contracts import Candidate, Workbench


@dataclass(frozen=True)
class FineTuneFloat:
    """Train `epochs` more at a peak of `learning_rate`."""

    epochs: int = 1
    learning_rate: float = 0.005
    name: ClassVar[str] = "fine_tune"
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = True

    def unsupported(self, candidate: Candidate) -> str | None:
        """Any float model can be fine-tuned."""
        return None

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return the candidate with a fine-tuned copy of its model."""
        model = copy.deepcopy(candidate.model)
        workbench.fine_tune(
            model, epochs=self.epochs, learning_rate=self.learning_rate, label="fine-tune FP32"
        )
        return Candidate(model, candidate.spec)
