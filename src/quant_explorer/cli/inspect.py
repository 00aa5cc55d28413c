"""`quant-explorer inspect`: what a model asks for, and what each runtime will quantize of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quant_explorer.cli.options import json_option, run_options, runtime_option
from quant_explorer.core.settings.declaration import Value

if TYPE_CHECKING:
    from quant_explorer.pipeline.plan.layers import LayerPlan, ModelPlan

STATIC = "static_int8_per_channel"


@click.command()
@click.option(
    "--config", default=STATIC, metavar="NAME", help=f"Configuration (see `list`).  [default: {STATIC}]"
)
@runtime_option("all")
@run_options
@json_option
def command(
    run_dir: Path | None, config: str, runtimes: tuple[str, ...], as_json: bool, **given: Value
) -> int:
    """Show parameters, multiply-accumulates and layers, and which of them each runtime will quantize.

    Nothing is trained or built, and no image is decoded.
    """
    import tempfile

    from quant_explorer.cli.console import ConsoleProgress, divert_libraries
    from quant_explorer.cli.job import print_figures, say
    from quant_explorer.cli.options import resolve
    from quant_explorer.core.units import format_count
    from quant_explorer.pipeline.plan.layers import plan_layers
    from quant_explorer.pipeline.plan.space import CONFIGURATIONS, choose_runtimes
    from quant_explorer.pipeline.subject import load_float_model
    from quant_explorer.runtimes import RUNTIMES

    _, wanted = resolve(run_dir, given)
    steps = CONFIGURATIONS[config](wanted.settings)
    chosen = choose_runtimes(runtimes, RUNTIMES)
    with tempfile.TemporaryDirectory() as folder, divert_libraries(Path(folder) / "log.txt"):
        loaded = load_float_model(wanted.settings, ConsoleProgress())
        plan = plan_layers(loaded.module, loaded.input_shape, steps, chosen)
    if as_json:
        print_figures([_figures(layer, plan) for layer in plan.layers], as_json=True, title="")
        return 0
    title = f"{loaded.name}, {config}"
    print_figures([_row(layer, plan) for layer in plan.layers], as_json=False, title=title)
    size = " x ".join(map(str, loaded.input_shape))
    macs = format_count(plan.cost.macs, "MAC")
    say(f"{format_count(plan.parameters, 'parameter')}, {macs} for an image of {size}")
    for sentence in explain(plan):
        say(f"- {sentence}")
    return 0


def explain(plan: ModelPlan) -> Iterator[str]:
    """Yield why runtimes refuse the model, and why layers are not quantized, a sentence each."""
    for runtime, reason in plan.refusals.items():
        yield f"{runtime} refuses it: {reason}"
    layers: dict[tuple[str, str], dict[str, list[str]]] = {}
    for layer in plan.layers:
        for runtime, treatment in layer.treatments.items():
            if treatment.decision in ("float", "once built"):
                named = layers.setdefault((treatment.decision, treatment.reason), {})
                named.setdefault(layer.cost.name or "(outside of layers)", []).append(runtime)
    for (decision, reason), named in layers.items():
        runtimes = dict.fromkeys(runtime for found in named.values() for runtime in found)
        state = "in float" if decision == "float" else "not known"
        where = ", ".join(runtimes) if len(runtimes) < len(layer.treatments) else "all runtimes"
        yield f"{', '.join(named)}: {state} on {where}: {reason}"


def _row(layer: LayerPlan, plan: ModelPlan) -> dict[str, object]:
    cost = layer.cost
    return {
        "layer": cost.name or "-",
        "kind": cost.kind,
        "MACs": f"{cost.macs:,}",
        "of MACs": _share(cost.macs, plan.cost.macs),
        "weights": f"{cost.parameters:,}",
        "of weights": _share(cost.parameters, plan.parameters),
        "INT8 on": _runtimes(layer),
    }


def _figures(layer: LayerPlan, plan: ModelPlan) -> dict[str, object]:
    cost = layer.cost
    return {
        "layer": cost.name,
        "kind": cost.kind,
        "macs": cost.macs,
        "macs_share": cost.macs / plan.cost.macs,
        "parameters": cost.parameters,
        "parameters_share": cost.parameters / plan.parameters if plan.parameters else 0.0,
        "runtimes": {
            name: {"decision": treatment.decision, "reason": treatment.reason}
            for name, treatment in layer.treatments.items()
        },
    }


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _runtimes(layer: LayerPlan) -> str:
    found = {name: treatment.decision for name, treatment in layer.treatments.items()}
    quantizing = [name for name, decision in found.items() if decision == "int8"]
    others = [name for name in found if name not in quantizing]
    if not others:
        return "all"
    if not quantizing:
        return "?" if "once built" in found.values() else "none"
    return f"all but {', '.join(others)}" if len(others) < len(quantizing) else ", ".join(quantizing)
