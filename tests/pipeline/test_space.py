from pathlib import Path

import pytest

from quant_explorer.core.errors import UnknownNameError
from quant_explorer.pipeline.settings import Protocol, Settings
from quant_explorer.pipeline.space import BASELINE_CONFIG, CONFIGURATIONS, describe, recipes
from quant_explorer.runtimes.eager import Eager
from quant_explorer.testing.fake_runtime import FakeRuntime

SETTINGS = Settings("mnist5k", "small_cnn", Path("data"), fine_tune_epochs=3)
BOTH = {"eager": Eager, "fake": FakeRuntime}


def test_the_baseline_comes_first_and_once() -> None:
    for configs in ([], ["dynamic_int8"], ["dynamic_int8", BASELINE_CONFIG], list(CONFIGURATIONS)):
        found = [recipe.name for recipe in recipes(configs, {"eager": Eager}, SETTINGS, Protocol())]
        assert found[0] == "fp32_baseline@eager"
        assert len(set(found)) == len(found)
        assert set(found) == {f"{config}@eager" for config in (*configs, BASELINE_CONFIG)}


def test_every_configuration_is_tried_on_every_runtime() -> None:
    found = [recipe.name for recipe in recipes(["fp32_baseline", "dynamic_int8"], BOTH, SETTINGS, Protocol())]
    assert found == [
        *("fp32_baseline@eager", "fp32_baseline@fake"),
        *("dynamic_int8@eager", "dynamic_int8@fake"),
    ]


def test_qat_and_its_control_train_for_as_long() -> None:
    _, qat, control = recipes(["qat_int8", "fp32_finetune"], {"eager": Eager}, SETTINGS, Protocol())
    assert qat.steps[-1].parameters == control.steps[-1].parameters == (("epochs", 3),)
    _, per_channel = recipes(["static_int8_per_channel"], {"eager": Eager}, SETTINGS, Protocol())
    assert qat.steps[:-1] == per_channel.steps


def test_ptq_differs_from_ptq_in_granularity_alone() -> None:
    _, per_tensor, per_channel = recipes(
        ["static_int8_per_tensor", "static_int8_per_channel"], {"eager": Eager}, SETTINGS, Protocol()
    )
    (tensor,), (channel,) = per_tensor.steps, per_channel.steps
    assert tensor.technique == channel.technique == "static_int8"
    # per_channel is the technique's default, and defaults are left out.
    assert (tensor.parameters, channel.parameters) == ((("granularity", "per_tensor"),), ())


def test_an_engine_is_an_option_of_eager_alone() -> None:
    chosen = Settings("mnist5k", "small_cnn", Path("data"), engine="qnnpack")
    found = recipes(["fp32_baseline"], BOTH, chosen, Protocol())
    assert [recipe.options for recipe in found] == [(("engine", "qnnpack"),), ()]


def test_an_unknown_configuration_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dynamic_int8'"):
        recipes(["dynamic_int"], {"eager": Eager}, SETTINGS, Protocol())


@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_every_configuration_is_described(config: str) -> None:
    assert describe(config).endswith(".")
