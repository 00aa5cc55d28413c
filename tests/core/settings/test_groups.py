from pathlib import Path

import pytest

from quant_explorer.core.errors import SettingsError
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings


def test_the_least_of_everything_is_allowed() -> None:
    Settings("d", "m", Path(), seed=0, epochs=1, fine_tune_epochs=1, train_subset=1, test_subset=1)
    MeasurementProtocol(threads=1, batch_sizes=(1,), rounds=2, precision=0.001, time_limit_s=0.001)


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epoch_is_no_training(epochs: int) -> None:
    with pytest.raises(SettingsError, match=rf"--epochs {epochs} is out of range\. Allowed: at least 1\."):
        Settings("d", "m", Path(), epochs=epochs)
    with pytest.raises(SettingsError, match="--fine-tune-epochs"):
        Settings("d", "m", Path(), fine_tune_epochs=epochs)


@pytest.mark.parametrize("sizes", [(), (2,), (0, 1), (-1, 1)])
def test_batch_sizes_are_positive_and_have_a_one(sizes: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="--batch-sizes"):
        MeasurementProtocol(batch_sizes=sizes)


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"batch_size": 0}, "--batch-size"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"dataloader_seed": -1}, "--dataloader-seed"),
        ({"calibration_images": 0}, "--calibration-images"),
    ],
)
def test_training_options_out_of_range_are_reported(change: dict[str, float], option: str) -> None:
    with pytest.raises(SettingsError, match=rf"{option} .* is out of range"):
        Settings("d", "m", Path(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"warmup_calls": -1}, {"rounds": 5, "most_rounds": 4}])
def test_rounds_and_warm_up_out_of_range_are_reported(change: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="is out of range"):
        MeasurementProtocol(**change)  # type: ignore[arg-type]


def test_batches_have_the_run_s_seed_unless_they_have_one_of_their_own() -> None:
    assert Settings("d", "m", Path(), seed=3).batch_seed == 3
    assert Settings("d", "m", Path(), seed=3, dataloader_seed=4).batch_seed == 4
