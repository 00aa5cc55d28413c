import pytest

from quant_explorer.analysis.hardware.energy import energy_per_call, energy_proxy_j
from quant_explorer.core.measurement import EnergyBlock


def test_energy_a_call_is_the_median_of_the_blocks() -> None:
    blocks = [EnergyBlock(calls=10, duration_s=0.5, energy_j=10 * joules) for joules in (3.0, 1.0, 2.0)]
    point, interval = energy_per_call(blocks)
    assert point == pytest.approx(2.0)
    assert interval.low < 2.0 < interval.high


@pytest.mark.parametrize(
    "blocks",
    [
        [EnergyBlock(1, 1.0, 1.0)],
        [EnergyBlock(1, 1.0, 1.0), EnergyBlock(0, 1.0, 1.0)],
        [EnergyBlock(1, 1.0, 1.0), EnergyBlock(1, 1.0, 0.0)],
    ],
)
def test_too_few_blocks_and_blocks_without_energy_are_refused(blocks: list[EnergyBlock]) -> None:
    with pytest.raises(ValueError, match=r"block|rounds"):
        energy_per_call(blocks)


def test_the_proxy_ranks_as_latency_does() -> None:
    assert energy_proxy_j(15.0, 0.002) == pytest.approx(0.03)
    with pytest.raises(ValueError, match="positive"):
        energy_proxy_j(0.0, 0.002)
