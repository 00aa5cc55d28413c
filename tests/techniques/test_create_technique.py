import pytest

from quant_explorer.core.errors import SettingsError, UnknownNameError
from quant_explorer.core.recipe import Step
from quant_explorer.techniques import create_step, create_technique
from quant_explorer.techniques.qat import QuantizationAwareTraining


def test_defaults_are_left_out_and_the_rest_is_sorted() -> None:
    assert create_step("qat", epochs=1) == Step("qat", QuantizationAwareTraining.version)
    step = create_step("qat", learning_rate=0.1, epochs=2)
    assert step == Step("qat", QuantizationAwareTraining.version, (("epochs", 2), ("learning_rate", 0.1)))
    assert create_technique(step) == QuantizationAwareTraining(epochs=2, learning_rate=0.1)


def test_unknown_technique() -> None:
    with pytest.raises(
        UnknownNameError, match=r"'qta'\. Did you mean 'qat'\? Allowed: dynamic_int8, fine_tune"
    ):
        create_step("qta")


def test_unknown_parameter() -> None:
    with pytest.raises(
        SettingsError, match=r"'epoch'\. Did you mean 'epochs'\? Allowed: epochs, learning_rate"
    ):
        create_step("qat", epoch=2)
