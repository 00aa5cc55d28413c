from pathlib import Path

import pytest

from quant_explorer.core.errors import SettingsError
from quant_explorer.pipeline.settings import Protocol, Settings


def test_the_least_of_everything_is_allowed() -> None:
    Settings("d", "m", Path(), seed=0, epochs=1, fine_tune_epochs=1, train_subset=1, test_subset=1)
    Protocol(threads=1, batch_sizes=(1,), rounds=2, precision=0.001, time_limit_s=0.001)


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epoch_is_no_training(epochs: int) -> None:
    with pytest.raises(SettingsError, match=rf"--epochs {epochs} is out of range\. Allowed: at least 1\."):
        Settings("d", "m", Path(), epochs=epochs)
    with pytest.raises(SettingsError, match="--fine-tune-epochs"):
        Settings("d", "m", Path(), fine_tune_epochs=epochs)


@pytest.mark.parametrize("sizes", [(), (2,), (0, 1), (-1, 1)])
def test_batch_sizes_are_positive_and_have_a_one(sizes: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="--batch-sizes"):
        Protocol(batch_sizes=sizes)
