"""What to try: named configurations, and the recipes a command makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from quant_explorer.core.contracts import Runtime
from quant_explorer.core.quantspec import Precision
from quant_explorer.core.recipe import (
    BASELINE_CONFIG,
    BASELINE_RUNTIME,
    CONTROL_CONFIG,
    ParameterValue,
    Recipe,
    Step,
)
from quant_explorer.core.registry import Registry
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.core.settings.plan import Cell
from quant_explorer.techniques import create_step

# Stands for every runtime on the command line.
ALL = "all"


def _fp32_baseline(settings: Settings) -> tuple[Step, ...]:
    """FP32 as trained: the reference."""
    return ()


def _dynamic_int8(settings: Settings) -> tuple[Step, ...]:
    """INT8 weights of linear layers, activations quantized at run time."""
    return (create_step("dynamic_int8", float_layers=",".join(settings.float_layers)),)


def _static_int8_per_tensor(settings: Settings) -> tuple[Step, ...]:
    """INT8 weights and activations, one scale a weight tensor."""
    return (_static_int8(settings, "per_tensor"),)


def _static_int8_per_channel(settings: Settings) -> tuple[Step, ...]:
    """INT8 weights and activations, one scale an output channel."""
    return (_static_int8(settings, "per_channel"),)


def _qat_int8(settings: Settings) -> tuple[Step, ...]:
    """INT8 per channel after fine-tuning with fake quantization."""
    return (*_static_int8_per_channel(settings), _fine_tuning("qat", settings))


def _fp32_finetune(settings: Settings) -> tuple[Step, ...]:
    """FP32 fine-tuned for as long: the control of qat_int8."""
    return (_fine_tuning("fine_tune", settings),)


def _bf16(settings: Settings) -> tuple[Step, ...]:
    """Weights and products in bfloat16, where runtime and CPU have it."""
    return (create_step("half_precision", precision="bf16"),)


def _fp16(settings: Settings) -> tuple[Step, ...]:
    """Weights and products in float16, where runtime and CPU have it."""
    return (create_step("half_precision", precision="fp16"),)


def _static_int8(settings: Settings, granularity: str) -> Step:
    return create_step("static_int8", granularity=granularity, float_layers=",".join(settings.float_layers))


def _fine_tuning(technique: str, settings: Settings) -> Step:
    rate = settings.qat_learning_rate
    given = {} if rate is None else {"learning_rate": rate}
    return create_step(technique, epochs=settings.fine_tune_epochs, **given)


CONFIGURATIONS: Registry[Callable[[Settings], tuple[Step, ...]]] = Registry(
    "configuration",
    {
        BASELINE_CONFIG: _fp32_baseline,
        "dynamic_int8": _dynamic_int8,
        "static_int8_per_tensor": _static_int8_per_tensor,
        "static_int8_per_channel": _static_int8_per_channel,
        "qat_int8": _qat_int8,
        CONTROL_CONFIG: _fp32_finetune,
        "bf16": _bf16,
        "fp16": _fp16,
    },
)


_PRECISIONS: Mapping[Precision, Callable[[Settings], tuple[Step, ...]]] = {
    "fp32": _fp32_baseline,
    "fp16": _fp16,
    "bf16": _bf16,
    "int8": _static_int8_per_channel,
}


def describe_config(config: str) -> str:
    """Return the one line that `list` and the help show for a configuration."""
    return (CONFIGURATIONS[config].__doc__ or "").strip()


def recipes(
    configs: Iterable[str],
    runtimes: Mapping[str, type[Runtime]],
    settings: Settings,
    protocol: MeasurementProtocol,
) -> tuple[Recipe, ...]:
    """Return every configuration on every runtime, the baseline first whether it was named or not.

    A runtime that is not available here has one recipe, so that the report says why.
    """
    return _on_runtimes(
        {config: CONFIGURATIONS[config](settings) for config in configs}, runtimes, settings, protocol
    )


def sweep_cells(levels: Iterable[float], precisions: Iterable[Precision]) -> tuple[Cell, ...]:
    """Return the grid of pruning levels and precisions, the baseline first whether it was named or not."""
    grid = [(level, precision) for level in levels for precision in precisions]
    return tuple(
        Cell(_cell_name(level, precision), level, precision)
        for level, precision in dict.fromkeys([(0.0, "fp32"), *grid])
    )


def sweep_recipes(
    cells: Iterable[Cell],
    runtimes: Mapping[str, type[Runtime]],
    settings: Settings,
    protocol: MeasurementProtocol,
    *,
    importance: str,
    round_to: int,
    fine_tune: Step | None,
) -> tuple[Recipe, ...]:
    """Return every cell of a grid on every runtime, the baseline first.

    A pruned model goes through `fine_tune` before it is quantized, so that its precisions and runtimes share
    those weights; an unpruned one trained in the same way is its control.
    """
    training = () if fine_tune is None else (fine_tune,)

    def steps(cell: Cell) -> tuple[Step, ...]:
        quantize = _PRECISIONS[cell.precision](settings)
        if not cell.pruning:
            return quantize
        prune = create_step("prune", ratio=cell.pruning, importance=importance, round_to=round_to)
        return (prune, *training, *quantize)

    grid = {cell.config: steps(cell) for cell in cells}
    found = _on_runtimes(grid, runtimes, settings, protocol)
    if training and any(cell.pruning for cell in cells):
        options = _options(BASELINE_RUNTIME, settings, protocol)
        found = (*found, Recipe(CONTROL_CONFIG, training, BASELINE_RUNTIME, options))
    return found


def stand_in_recipes(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Return FP32 on each runtime of `recipes` but that of the first, in their order."""
    own = {recipe.runtime: recipe.options for recipe in recipes if recipe.runtime != recipes[0].runtime}
    return tuple(Recipe(BASELINE_CONFIG, (), runtime, options) for runtime, options in own.items())


def choose_runtimes(names: Sequence[str], available: Mapping[str, type[Runtime]]) -> dict[str, type[Runtime]]:
    """Return the runtimes that are named, all of them for the name "all"; raises UnknownNameError."""
    if ALL in names:
        return dict(available)
    return {name: available[name] for name in dict.fromkeys(names)}


def _on_runtimes(
    configs: Mapping[str, tuple[Step, ...]],
    runtimes: Mapping[str, type[Runtime]],
    settings: Settings,
    protocol: MeasurementProtocol,
) -> tuple[Recipe, ...]:
    steps = {BASELINE_CONFIG: (), **configs}
    pairs = [(BASELINE_CONFIG, BASELINE_RUNTIME)]
    for config in configs:
        for runtime, kind in runtimes.items():
            pairs.append((BASELINE_CONFIG if kind().unavailable() else config, runtime))
    return tuple(
        Recipe(config, steps[config], runtime, _options(runtime, settings, protocol))
        for config, runtime in dict.fromkeys(pairs)
    )


def _cell_name(level: float, precision: Precision) -> str:
    if not level:
        return BASELINE_CONFIG if precision == "fp32" else precision
    return f"pruned{100 * level:g}_{precision}"


def _options(
    runtime: str, settings: Settings, protocol: MeasurementProtocol
) -> tuple[tuple[str, ParameterValue], ...]:
    if runtime in ("eager", "torchscript") and settings.engine:
        return (("engine", settings.engine),)
    if runtime == "executorch":
        return (("batch_sizes", ",".join(map(str, protocol.batch_sizes))),)
    return ()
