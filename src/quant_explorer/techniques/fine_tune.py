"""Fine-tuning in FP32: the control of whatever else was fine-tuned for as long.

Same images, epochs, schedule, learning rate and seed as quantization-aware training, so that the
difference between the two is quantization and not training. The schedule is the one-cycle of the
run's own training loop.

With `distill` the run's own model as it was before any technique is the teacher, so that a pruned network
learns its logits z beside the labels. With p(z) = softmax(z / T), of the student s and the teacher t:

    loss = w T^2 KL(p(z_t) || p(z_s)) + (1 - w) cross_entropy(z_s, labels)

T^2 makes up for the gradients of soft targets, which shrink by 1 / T^2.
Source: Smith and Topin, "Super-Convergence", 2018; Hinton et al., "Distilling the Knowledge in a Neural
Network", 2015, section 2 (it used T of 2.5 to 20, and a much lower weight on the labels).
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from quant_explorer.core.contracts import Candidate, Teacher, Workbench
from quant_explorer.core.errors import UnsupportedError


@dataclass(frozen=True)
class FineTuneFloat:
    """Train `epochs` more at a peak of `learning_rate`.

    With `distill`, `teacher_weight` is w above (the share of the teacher) and `temperature` is T.
    """

    epochs: int = 1
    learning_rate: float = 0.005
    distill: bool = False
    temperature: float = 4.0
    teacher_weight: float = 0.9
    name: ClassVar[str] = "fine_tune"
    version: ClassVar[int] = 1
    trains: ClassVar[bool] = True

    def versions(self) -> dict[str, str]:
        """Nothing but PyTorch decides what it makes."""
        return {}

    def unsupported(self, candidate: Candidate) -> str | None:
        """Any float module can be fine-tuned."""
        from quant_explorer.tracing.onnx_program import explain_no_module

        if reason := explain_no_module(candidate.model):
            return reason
        if self.temperature <= 0:
            return f"temperature {self.temperature} is out of range. Allowed: above 0"
        if not 0 <= self.teacher_weight <= 1:
            return f"teacher_weight {self.teacher_weight} is out of range. Allowed: 0 to 1"
        return None

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return the candidate with a fine-tuned copy of its model.

        Raises UnsupportedError when there should be a teacher and the workbench has none.
        """
        model = copy.deepcopy(candidate.model)
        if not self.distill:
            workbench.fine_tune(
                model, epochs=self.epochs, learning_rate=self.learning_rate, label="fine-tune FP32"
            )
            return dataclasses.replace(candidate, model=model)
        if workbench.baseline is None:
            raise UnsupportedError("distillation needs the run's own float model, and there is none here")
        workbench.fine_tune(
            model,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            label="fine-tune FP32 (distilled)",
            teacher=Teacher(workbench.baseline, self.temperature, self.teacher_weight),
        )
        return dataclasses.replace(candidate, model=model)
