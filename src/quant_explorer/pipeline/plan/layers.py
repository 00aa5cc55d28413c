"""What each runtime will do with each layer of a float model, before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from quant_explorer.core.contracts import Candidate, Runtime, Teacher, Workbench
from quant_explorer.core.cost.counts import LayerCost, ModelCost
from quant_explorer.core.errors import require_supported
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Step
from quant_explorer.techniques import TECHNIQUES, create_technique
from quant_explorer.tracing.onnx_program import OnnxProgram, linear_layers
from quant_explorer.tracing.plain import TRANSPOSED, layers_of, make_plain
from quant_explorer.workload.model_cost import analyze_model, count_parameters

if TYPE_CHECKING:
    from torch import nn

Decision = Literal["int8", "float", "refused", "once built"]

_NAMED: Final = "named by --float-layer"
_OTHER_KIND: Final = "what becomes of this kind of layer shows once it is built"
_NOT_LINEAR: Final = "dynamic INT8 is of linear layers"


@dataclass(frozen=True)
class Treatment:
    """What a runtime does with a layer; the reason is empty where it is quantized."""

    decision: Decision
    reason: str = ""


@dataclass(frozen=True)
class LayerPlan:
    """A layer that multiplies, and its treatment by each runtime."""

    cost: LayerCost
    treatments: Mapping[str, Treatment]


@dataclass(frozen=True)
class ModelPlan:
    """Layers by their share of multiply-accumulates, largest first, and why runtimes refuse the model.

    `parameters` are those of the whole model.
    """

    cost: ModelCost
    parameters: int
    layers: tuple[LayerPlan, ...]
    refusals: Mapping[str, str]


def plan_layers(
    model: nn.Module,
    input_shape: tuple[int, ...],
    steps: tuple[Step, ...],
    runtimes: Mapping[str, type[Runtime]],
) -> ModelPlan:
    """Return what `runtimes` will do with `model` after the techniques of `steps`, but those that train.

    `input_shape` is (channels, height, width). Raises UnsupportedError when a technique cannot be applied.
    """
    candidate = Candidate(make_plain(model), QuantSpec())
    for step in steps:
        if TECHNIQUES[step.technique].trains:
            continue
        technique = create_technique(step)
        require_supported(technique.unsupported(candidate))
        candidate = technique.apply(candidate, Workbench((), _train_nothing))
    created = {name: kind() for name, kind in runtimes.items()}
    refusals = {
        name: reason
        for name, runtime in created.items()
        if (reason := runtime.unavailable() or runtime.unsupported(candidate))
    }
    kept = {name: {} if name in refusals else created[name].kept_in_float(candidate) for name in created}
    kinds = _kinds(candidate)
    cost = analyze_model(candidate.model, input_shape)
    layers = tuple(
        LayerPlan(
            layer,
            {
                name: Treatment("refused", refusals[name])
                if name in refusals
                else _treat(layer.name, candidate, kinds, kept[name])
                for name in created
            },
        )
        for layer in sorted(cost.layers, key=lambda layer: -layer.macs)
        if layer.macs
    )
    return ModelPlan(cost, count_parameters(candidate.model), layers, refusals)


def _train_nothing(
    model: nn.Module, *, epochs: int, learning_rate: float, label: str, teacher: Teacher | None = None
) -> None:
    """Stand for training, which changes no layer's precision."""


def _kinds(candidate: Candidate) -> dict[str, str]:
    """Return the layers that every runtime has INT8 for, or says that it has not, by what they are."""
    from torch import nn

    if isinstance(candidate.model, OnnxProgram):
        convolutions: Iterable[str] = candidate.model.convolutions
    else:
        convolutions = layers_of(candidate.model, (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED))
    linear = linear_layers(candidate.model)
    return dict.fromkeys(linear, "linear") | dict.fromkeys(convolutions, "convolution")


def _treat(layer: str, candidate: Candidate, kinds: Mapping[str, str], kept: Mapping[str, str]) -> Treatment:
    spec = candidate.spec
    if spec.precision != "int8":
        return Treatment("float", f"{spec.precision} is asked for")
    if layer in spec.float_layers:
        return Treatment("float", _NAMED)
    kind = kinds.get(layer)
    if spec.activations == "dynamic" and kind != "linear":
        return Treatment("float", _NOT_LINEAR)
    if kind is None:
        return Treatment("once built", _OTHER_KIND)
    if layer in kept:
        return Treatment("float", kept[layer])
    return Treatment("int8")
