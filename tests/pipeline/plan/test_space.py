from pathlib import Path

import pytest

from quant_explorer.core.contracts import Runtime
from quant_explorer.core.errors import UnknownNameError
from quant_explorer.core.quantspec import Precision
from quant_explorer.core.recipe import BASELINE_CONFIG, ParameterValue, Recipe
from quant_explorer.core.registry import Registry
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.pipeline.plan.space import (
    CONFIGURATIONS,
    choose_runtimes,
    describe_config,
    recipes,
    sweep_cells,
    sweep_recipes,
)
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.techniques import create_step, create_technique
from quant_explorer.techniques.half import HalfPrecision
from quant_explorer.testing.fake_runtime import FakeRuntime

SETTINGS = Settings("mnist5k", "small_cnn", Path("data"), fine_tune_epochs=3)
BOTH: Registry[type[Runtime]] = Registry("runtime", {"eager": Eager, "fake": FakeRuntime})


class NotInstalled(FakeRuntime):
    """A runtime whose library is not there."""

    def unavailable(self) -> str | None:
        """Say so."""
        return "fakelib not installed"


def test_the_baseline_comes_first_and_once() -> None:
    for configs in ([], ["dynamic_int8"], ["dynamic_int8", BASELINE_CONFIG], list(CONFIGURATIONS)):
        found = [
            recipe.name for recipe in recipes(configs, {"eager": Eager}, SETTINGS, MeasurementProtocol())
        ]
        assert found[0] == "fp32_baseline@eager"
        assert len(set(found)) == len(found)
        assert set(found) == {f"{config}@eager" for config in (*configs, BASELINE_CONFIG)}


def test_every_configuration_is_tried_on_every_runtime() -> None:
    found = [
        recipe.name
        for recipe in recipes(["fp32_baseline", "dynamic_int8"], BOTH, SETTINGS, MeasurementProtocol())
    ]
    assert found == [
        *("fp32_baseline@eager", "fp32_baseline@fake"),
        *("dynamic_int8@eager", "dynamic_int8@fake"),
    ]


def test_qat_and_its_control_train_for_as_long() -> None:
    _, qat, control = recipes(
        ["qat_int8", "fp32_finetune"], {"eager": Eager}, SETTINGS, MeasurementProtocol()
    )
    assert qat.steps[-1].parameters == control.steps[-1].parameters == (("epochs", 3),)
    _, per_channel = recipes(["static_int8_per_channel"], {"eager": Eager}, SETTINGS, MeasurementProtocol())
    assert qat.steps[:-1] == per_channel.steps


def test_ptq_differs_from_ptq_in_granularity_alone() -> None:
    _, per_tensor, per_channel = recipes(
        ["static_int8_per_tensor", "static_int8_per_channel"],
        {"eager": Eager},
        SETTINGS,
        MeasurementProtocol(),
    )
    (tensor,), (channel,) = per_tensor.steps, per_channel.steps
    assert tensor.technique == channel.technique == "static_int8"
    # per_channel is the technique's default, and defaults are left out.
    assert (tensor.parameters, channel.parameters) == ((("granularity", "per_tensor"),), ())


def test_half_precision_is_one_technique_in_two_formats() -> None:
    _, bf16, fp16 = recipes(["bf16", "fp16"], {"eager": Eager}, SETTINGS, MeasurementProtocol())
    made = [create_technique(step) for recipe in (bf16, fp16) for step in recipe.steps]
    assert made == [HalfPrecision("bf16"), HalfPrecision("fp16")]


@pytest.mark.parametrize("configs", [["fp32_baseline", "bf16", "fp16"], ["bf16"]])
def test_a_runtime_that_is_not_available_has_one_recipe_that_says_so(configs: list[str]) -> None:
    both = {"eager": Eager, "fake": NotInstalled}
    found = [recipe.name for recipe in recipes(configs, both, SETTINGS, MeasurementProtocol())]
    assert [name for name in found if name.endswith("@fake")] == ["fp32_baseline@fake"]
    assert [name for name in found if name.endswith("@eager")] == [
        f"{config}@eager" for config in dict.fromkeys(["fp32_baseline", *configs])
    ]


def test_an_engine_is_an_option_of_the_runtimes_of_pytorch_that_have_one() -> None:
    chosen = Settings("mnist5k", "small_cnn", Path("data"), engine="qnnpack")
    engine = (("engine", "qnnpack"),)
    assert options(chosen) == {"eager": engine, "torchscript": engine, "inductor": ()}
    assert options(SETTINGS) == {"eager": (), "torchscript": (), "inductor": ()}


def options(settings: Settings) -> dict[str, tuple[tuple[str, ParameterValue], ...]]:
    runtimes = dict.fromkeys(("eager", "torchscript", "inductor"), FakeRuntime)
    found = recipes(["fp32_baseline"], runtimes, settings, MeasurementProtocol())
    return {recipe.runtime: recipe.options for recipe in found}


def test_batch_sizes_are_an_option_where_files_are_made_for_them() -> None:
    runtimes = {"eager": Eager, "executorch": FakeRuntime}
    _, small = recipes(
        ["bf16"], {"executorch": FakeRuntime}, SETTINGS, MeasurementProtocol(batch_sizes=(1, 4))
    )
    assert small.options == (("batch_sizes", "1,4"),)
    eager, executorch = recipes(["fp32_baseline"], runtimes, SETTINGS, MeasurementProtocol())
    assert (eager.options, executorch.options) == ((), (("batch_sizes", "1,8,32"),))


def test_runtimes_are_chosen_by_name() -> None:
    assert list(choose_runtimes(["fake", "eager", "fake"], BOTH)) == ["fake", "eager"]
    for names in (["all"], ["fake", "all"]):
        assert choose_runtimes(names, BOTH) == dict(BOTH)
    assert choose_runtimes([], BOTH) == {}
    with pytest.raises(UnknownNameError, match=r"unknown runtime 'eagre'\. Did you mean 'eager'"):
        choose_runtimes(["fake", "eagre"], BOTH)


def test_an_unknown_configuration_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dynamic_int8'"):
        recipes(["dynamic_int"], {"eager": Eager}, SETTINGS, MeasurementProtocol())


@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_every_configuration_is_described(config: str) -> None:
    assert describe_config(config).endswith(".")


def sweep(
    levels: list[float], precisions: list[Precision], *, fine_tune_epochs: int = 1
) -> tuple[Recipe, ...]:
    return sweep_recipes(
        sweep_cells(levels, precisions),
        BOTH,
        SETTINGS,
        MeasurementProtocol(),
        importance="l1",
        round_to=1,
        fine_tune=create_step("fine_tune", epochs=fine_tune_epochs) if fine_tune_epochs else None,
    )


def test_a_sweep_has_every_pair_on_every_runtime_and_the_control() -> None:
    found = [recipe.name for recipe in sweep([0.0, 0.25], ["fp32", "int8"])]
    assert found == [
        *("fp32_baseline@eager", "fp32_baseline@fake", "int8@eager", "int8@fake"),
        *("pruned25_fp32@eager", "pruned25_fp32@fake", "pruned25_int8@eager", "pruned25_int8@fake"),
        "fp32_finetune@eager",
    ]


def test_the_baseline_of_a_sweep_comes_first_whether_it_was_named_or_not() -> None:
    assert [recipe.name for recipe in sweep([0.5], ["int8"], fine_tune_epochs=0)] == [
        *("fp32_baseline@eager", "fp32_baseline@fake", "pruned50_int8@eager", "pruned50_int8@fake")
    ]


def test_precisions_of_a_level_share_what_was_pruned_and_fine_tuned() -> None:
    found = {
        recipe.config: recipe.steps for recipe in sweep([0.25], ["fp32", "fp16", "int8"], fine_tune_epochs=2)
    }
    shared = found["pruned25_fp32"]
    assert [step.technique for step in shared] == ["prune", "fine_tune"]
    assert dict(shared[1].parameters) == {"epochs": 2}
    assert found["pruned25_fp16"][:2] == found["pruned25_int8"][:2] == shared
    # The control is trained for as long, and is not pruned.
    assert found["fp32_finetune"] == shared[1:]


def test_without_fine_tuning_or_pruning_there_is_no_control() -> None:
    for some in (sweep([0.5], ["fp32"], fine_tune_epochs=0), sweep([0.0], ["fp32", "int8"])):
        assert not [recipe for recipe in some if recipe.config == "fp32_finetune"]


def test_unpruned_cells_of_a_sweep_are_the_configurations_of_the_pipeline() -> None:
    found = {recipe.config: recipe.steps for recipe in sweep([0.0], ["fp32", "fp16", "bf16", "int8"])}
    named = {
        "fp16": "fp16",
        "bf16": "bf16",
        "int8": "static_int8_per_channel",
        "fp32_baseline": "fp32_baseline",
    }
    assert found == {cell: CONFIGURATIONS[config](SETTINGS) for cell, config in named.items()}
