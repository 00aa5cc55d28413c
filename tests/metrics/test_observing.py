from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from quant_explorer.core.contracts import Batch, Session
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.measurement import Executed, Observation
from quant_explorer.metrics.observing import evaluate, observe
from quant_explorer.testing.toys import toy_batches
from tests.pipeline.toy_metric import Right

BATCH = toy_batches(count=1)[0]


class Identity:
    def run(self, batch: Batch) -> Batch:
        return batch

    def executed(self, batch: Batch) -> Executed:
        return Executed({}, {})


@dataclass(frozen=True)
class Watts:
    """A metric that finds what it is given."""

    found: Callable[[], Sequence[float]]
    name: ClassVar[str] = "power"
    unit: ClassVar[str] = "w"

    def observe(self, session: Session, folder: Path, batch: Batch) -> Sequence[float]:
        return self.found()


def refuse() -> Sequence[float]:
    raise UnsupportedError("this machine has no meter")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: [3, 2.5], Observation("power", "w", (3.0, 2.5))),
        (refuse, Observation("power", "w", reason="this machine has no meter")),
        (lambda: [], Observation("power", "w", reason="the metric returned no value")),
        (
            lambda: [1.0, float("nan")],
            Observation("power", "w", reason="the metric returned values that are not finite"),
        ),
    ],
)
def test_values_are_kept_and_their_absence_has_a_reason(
    found: Callable[[], Sequence[float]], expected: Observation, tmp_path: Path
) -> None:
    assert observe(Watts(found), Identity(), tmp_path, BATCH) == expected


def test_outputs_are_evaluated_where_they_belong_to_the_labels() -> None:
    logits, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
    assert evaluate(Right(), logits, labels, trained=True) == Observation("right", "n", (2.0,))
    untrained = evaluate(Right(), logits, labels, trained=False)
    assert untrained.values == ()
    assert "not trained on these classes" in (untrained.reason or "")
