"""Which values are quantized, with which ranges, and what is left of a model then."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import FULL_RANGE, Grid, QuantSpec
from quant_explorer.pipeline.building.simulation.activation_range import Observed, Range
from quant_explorer.pipeline.building.simulation.following import Following, Value, is_transposed
from quant_explorer.pipeline.building.simulation.rounding import Rounding
from quant_explorer.pipeline.building.simulation.sensitive import Call, call_of, find_unrounded
from quant_explorer.tracing.valued import FAILURES, trace

# PyTorch fixes the range of what these give, whatever is observed.
_FIXED = {
    **dict.fromkeys(("_softmax", "_safe_softmax"), Range(0.0, 1.0)),
    **dict.fromkeys(("sigmoid", "sigmoid_", "hardsigmoid", "hardsigmoid_"), Range(0.0, 1.0)),
    **dict.fromkeys(("tanh", "tanh_"), Range(-1.0, 1.0)),
}
# What is left on the grid of its input where a runtime shares pools.
_SHARING = (*("mean", "_adaptive_avg_pool2d", "avg_pool2d", "upsample_nearest2d", "upsample_bilinear2d"),)


class Simulation:
    """A candidate's float model on the grids that its spec asks for.

        static      weights (symmetric) and activations (affine) of products, that is of convolutions, linear
                    layers and products of matrices; and the operands of all other operators and the outputs,
                    as `eager` and ExecuTorch have them
        dynamic     weights and activations of linear layers, with the range of the batch
        half        all operands, in BF16 or FP16

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, sections 2 and 3.
    """

    def __init__(self, candidate: Candidate, calibration: Sequence[Batch]) -> None:
        """Observe the activations of static INT8 on the batches (n, channels, height, width)."""
        self._model, self._spec = candidate.model, candidate.spec
        self._observed: dict[Value, Observed] = {}
        self._calls: dict[Value, Call] = {}
        self._learned: dict[Value, Range] = {}
        self._transposes = False
        if self._spec.activations == "static":
            self._observe(calibration)
        self._ranges = functools.cache(self._find_ranges)

    def run(self, images: Batch, grid: Grid) -> tuple[Batch, ...]:
        """Return the logits (n, classes) that quantization to `grid` leaves of the images.

        They are several for static INT8, as runtimes differ: ranges by minimum and maximum, of least squared
        error where the observer is "histogram", and learned ones where there are any; pools on their own grid
        or on that of their input where the runtime shares it. The model is left untouched. Raises BuildError
        when forward() calls other operators for other images, UnsupportedError when none of them gives
        numbers.
        """
        if self._spec.activations != "static":
            roundings = [Rounding(self._model, self._spec, grid, {})]
        else:
            unrounded = find_unrounded(self._calls)
            roundings = [
                Rounding(self._model, self._spec, grid, ranges, *sharing, unrounded=unrounded)
                for ranges in self._ranges(grid.activation_levels)
                for sharing in ((), *([_SHARING] if grid.shares_pools else []))
            ]
        logits = [rounding.run(images) for rounding in roundings]
        pairs = zip(roundings, logits, strict=True)
        finite = tuple(found for rounding, found in pairs if rounding.overflowed is None)
        if not finite:
            raise UnsupportedError(
                f"in {self._spec.precision} the model gives no numbers: {roundings[0].overflowed} is "
                "the first that gives none, as a division by what is rounded to 0 does; keep it in float"
            )
        return finite

    def reduce(self, grid: Grid) -> Grid:
        """Return `grid` without what this model has no layers for, so that equal runs have equal grids."""
        if self._transposes:
            return grid
        return replace(grid, transposed=FULL_RANGE.transposed, transposed_groups=FULL_RANGE.transposed_groups)

    def _observe(self, calibration: Sequence[Batch]) -> None:
        names: dict[str, Value] = {}
        for batch in calibration:
            observing = _Observing(self._model, self._spec, self._observed, self._calls)
            if self._spec.activation_ranges and not names:
                # As training did, whose ranges have the names of this graph.
                naming = _Naming(self._trace(batch), observing, names)
                observing.run(batch, naming.run)
            else:
                observing.run(batch)
            self._transposes |= observing.transposes
        self._learned = {
            names[learned.layer]: Range(learned.low, learned.high)
            for learned in self._spec.activation_ranges
            if learned.layer in names
        }

    def _trace(self, batch: Batch) -> fx.GraphModule:
        try:
            return fx.symbolic_trace(self._model)
        except FAILURES:
            # As training did where forward() computes with sizes.
            return trace(copy.deepcopy(self._model).eval(), batch)

    def _find_ranges(self, levels: int) -> tuple[Mapping[Value, Range], ...]:
        widest = {value: observed.min_max() for value, observed in self._observed.items()}
        found = [widest]
        if self._spec.observer == "histogram":
            found.append({value: seen.least_squares(levels) for value, seen in self._observed.items()})
        if self._learned:
            found.append(widest | self._learned)
        return tuple(found)


class _Observing(Following):
    """Computes in float, and keeps what the operands of quantized operators are."""

    def __init__(
        self,
        model: nn.Module,
        spec: QuantSpec,
        observed: dict[Value, Observed],
        calls: dict[Value, Call],
    ) -> None:
        super().__init__(model, spec)
        self._observed, self._calls_by_value = observed, calls
        # With the part of the value: what views of it show has one range.
        self._seen: set[tuple[Value, int, torch.Size]] = set()
        self.transposes = False

    def activation(self, tensor: torch.Tensor, value: Value) -> torch.Tensor:
        """Record the range of an activation, and return it as it is."""
        part = value, tensor.data_ptr(), tensor.shape
        if part not in self._seen and not value.constant and not value.masked:
            self._seen.add(part)
            self._observed.setdefault(value, Observed(_FIXED.get(value.operator))).add(tensor)
        return tensor

    def note_call(self, made: Value, name: str, args: Sequence[object], operands: Sequence[Value]) -> None:
        """Keep it: it is the same for every batch."""
        self.transposes |= is_transposed(name, args)
        self._calls_by_value[made] = call_of(name, args, operands)


class _Naming(fx.Interpreter):
    """Runs a traced graph, and keeps which value each node gave."""

    def __init__(self, graph: fx.GraphModule, following: Following, names: dict[str, Value]) -> None:
        super().__init__(graph)
        self._following, self._names = following, names

    def run_node(self, n: fx.Node) -> object:
        """Run it, and look at what it gave."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self._names[n.name] = self._following.value(result)
        return result
