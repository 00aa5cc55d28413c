"""What a study records of a float model and of the machine, beside the measurements of variants."""

from __future__ import annotations

from dataclasses import dataclass

from quant_explorer.core.cost.counts import ModelCost
from quant_explorer.core.cost.roofline import Peaks


@dataclass(frozen=True)
class FloatModel:
    """What a float model asks of any machine: of the unpruned model, and of each pruned one.

    `steps` are the techniques that made it, as `Measurement.steps` has them; the variants whose steps begin
    with these are made of it. `channels` are those that could be pruned, (before, after). `digest` names the
    weights and the versions of the techniques, "" where they were not recorded.
    """

    model: str
    steps: tuple[str, ...]
    cost: ModelCost
    channels: tuple[int, int] | None = None
    digest: str = ""


@dataclass(frozen=True)
class MachinePeaks:
    """The roofs of the machine of an environment."""

    environment: str
    peaks: Peaks
