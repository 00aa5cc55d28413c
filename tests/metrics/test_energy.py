from __future__ import annotations

from dataclasses import dataclass

import pytest

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.metrics.energy import measure_energy


@dataclass
class Meter:
    """A counter of millijoules, and a load that draws so many a call."""

    draw_mj: int
    total_mj: int = 7

    def call(self) -> None:
        self.total_mj += self.draw_mj

    def read(self) -> tuple[int, ...]:
        return (self.total_mj,)

    def joules_since(self, before: tuple[int, ...]) -> float:
        return (self.total_mj - before[0]) / 1000


def test_a_block_repeats_calls_for_its_time() -> None:
    meter = Meter(draw_mj=1)
    block = measure_energy(meter.call, meter, min_block_s=0.02)
    assert block.duration_s >= 0.02
    assert block.calls > 1
    assert block.energy_j == pytest.approx(block.calls / 1000)


def test_a_counter_that_stands_still_is_no_energy_of_zero() -> None:
    meter = Meter(draw_mj=0)
    with pytest.raises(UnsupportedError, match="did not move"):
        measure_energy(meter.call, meter, min_block_s=0.0)
