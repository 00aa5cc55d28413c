"""Work and traffic of each layer, counted while a copy of the float model runs on one image.

Multiply-accumulates are half of what `torch.utils.flop_counter` counts (with `FORMULAS`), so that they add up
to the model's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quant_explorer.core.cost.counts import LayerCost
from quant_explorer.workload.tensors import tensors_in

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

Arguments = tuple[object, ...]
Keywords = dict[str, object]


def count_layers(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[LayerCost, ...]:
    """Return every layer that ran, in the order of first calls; `input_shape` is (channels, height, width).

    A layer is a module with parameters of its own, or one whose own `forward` multiplies (attention written
    out in a block, for instance). Operations belong to the innermost module that runs. Parameters of a
    module that never runs but that its parent reads (in nn.MultiheadAttention) count with the parent. The
    model is not touched: hooks and evaluation mode are those of a copy. Raises whatever the model raises.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from quant_explorer.tracing.attention import attention_as_products
    from quant_explorer.tracing.flops import FORMULAS

    own = copy.deepcopy(model).eval()
    counting = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with torch.no_grad(), attention_as_products(), counting as counter:
        log = _Log(counter)
        for name, module in own.named_modules():
            log.follow(name, module)
        own(torch.zeros(1, *input_shape))
    return tuple(_costs(log.layers, _count_parameters(own, log.layers)))


@dataclass
class _Layer:
    """What was seen of one module so far; shapes are those of its first call."""

    kind: str
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    flops: int = 0
    input_elements: int = 0
    output_elements: int = 0
    calls: int = 0


@dataclass
class _Log:
    """Modules by name in the order of first calls, and the calls that have not returned yet.

    Of each open call: the counter when it began, and what the modules inside of it have counted since.
    """

    counter: FlopCounterMode
    layers: dict[str, _Layer] = field(default_factory=dict)
    open_calls: list[tuple[int, int]] = field(default_factory=list)

    def follow(self, name: str, module: nn.Module) -> None:
        def enter(module: nn.Module, args: Arguments, kwargs: Keywords) -> None:
            self.layers.setdefault(name, _Layer(type(module).__name__))
            self.open_calls.append((self.counter.get_total_flops(), 0))

        def leave(module: nn.Module, args: Arguments, kwargs: Keywords, output: object) -> None:
            layer = self.layers[name]
            layer.flops += self._close()
            _see(layer, (args, kwargs), output)

        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave, with_kwargs=True)

    def _close(self) -> int:
        """End the innermost call; returns what it counted outside of the modules inside of it."""
        begun, inside = self.open_calls.pop()
        whole = self.counter.get_total_flops() - begun
        if self.open_calls:
            outer, before = self.open_calls[-1]
            self.open_calls[-1] = (outer, before + whole)
        return whole - inside


def _see(layer: _Layer, taken: object, given: object) -> None:
    inputs, outputs = list(tensors_in(taken)), list(tensors_in(given))
    if layer.calls == 0:
        layer.input_shape = tuple(inputs[0].shape) if inputs else ()
        layer.output_shape = tuple(outputs[0].shape) if outputs else ()
    layer.calls += 1
    layer.input_elements += sum(tensor.numel() for tensor in inputs)
    layer.output_elements += sum(tensor.numel() for tensor in outputs)


def _count_parameters(model: nn.Module, layers: Mapping[str, _Layer]) -> dict[str, int]:
    """Count parameters by the module that ran with them."""
    counts = dict.fromkeys(layers, 0)
    for name, module in model.named_modules():
        runner = name
        while runner not in layers:
            runner = runner.rpartition(".")[0]
        # Elsewhere it is a head for training only, which nothing reads in evaluation.
        if runner == name or layers[runner].flops:
            counts[runner] += sum(parameter.numel() for parameter in module.parameters(recurse=False))
    return counts


def _costs(layers: Mapping[str, _Layer], parameters: Mapping[str, int]) -> Iterator[LayerCost]:
    for name, layer in layers.items():
        if layer.flops or parameters[name]:
            yield LayerCost(
                name=name,
                kind=layer.kind,
                input_shape=layer.input_shape,
                output_shape=layer.output_shape,
                macs=layer.flops // 2,
                parameters=parameters[name],
                input_elements=layer.input_elements,
                output_elements=layer.output_elements,
                calls=layer.calls,
            )
