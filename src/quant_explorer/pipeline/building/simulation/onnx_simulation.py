"""What a quantization leaves of an ONNX file, which has no operators of PyTorch to look into."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import Grid
from quant_explorer.pipeline.building.simulation.activation_range import Observed, Range
from quant_explorer.pipeline.building.simulation.onnx_plan import Operand, plan_rounding
from quant_explorer.pipeline.building.simulation.rounding import round_weight
from quant_explorer.tracing.onnx_program import INPUT_NAME, OUTPUT_NAME, OnnxProgram

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIXED = {
    **dict.fromkeys(("Softmax", "Sigmoid", "HardSigmoid"), Range(0.0, 1.0)),
    "Tanh": Range(-1.0, 1.0),
}
_HALF = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
# Every activation of a step is kept until its range is known.
_IMAGES_A_STEP = 4


class OnnxSimulation:
    """An ONNX file on the grids that a spec asks for, as `Simulation` is for a module of PyTorch.

    The graph gets nodes that round operands, and runs in float32 without any optimization, so that none of
    ONNX Runtime's quantized kernels and none of its quantizer's choices are in it.
    """

    def __init__(self, candidate: Candidate, calibration: Sequence[Batch]) -> None:
        """Observe the activations of static INT8 on the batches (n, channels, height, width)."""
        assert isinstance(candidate.model, OnnxProgram)
        self._spec = candidate.spec
        self._model = _fold(candidate.model.data)
        self._plan = plan_rounding(self._model, candidate)
        self._observed: dict[str, Observed] = {}
        if self._spec.activations == "static":
            self._observe(calibration)
        self._ranges = functools.cache(self._find_ranges)

    def run(self, images: Batch, grid: Grid) -> tuple[Batch, ...]:
        """Return the logits (n, classes) that quantization to `grid` leaves of the images.

        They are several where ranges are found in several ways (`Simulation.run`); activations have 8 bits.
        Raises UnsupportedError when none of them are numbers.
        """
        sets = self._ranges(grid.activation_levels) if self._spec.activations == "static" else ({},)
        logits = [_open(self._rounded(grid, ranges)).run(None, {INPUT_NAME: images})[0] for ranges in sets]
        finite = tuple(found for found in logits if np.isfinite(found).all())
        if not finite:
            raise UnsupportedError(
                f"in {self._spec.precision} the model gives no numbers, as a division by what is rounded to "
                "0 or a sum beyond the largest number does; keep layers in float"
            )
        return finite

    def reduce(self, grid: Grid) -> Grid:
        """Return `grid`: both runtimes that read ONNX files have nearly the same."""
        return grid

    def _observe(self, calibration: Sequence[Batch]) -> None:
        names = self._plan.activations
        watched = onnx.ModelProto()
        watched.CopyFrom(self._model)
        watched.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in names
            if name not in (INPUT_NAME, OUTPUT_NAME)
        )
        session = _open(watched)
        read = [name for name in names if name != INPUT_NAME]
        for batch in calibration:
            for start in range(0, len(batch), _IMAGES_A_STEP):
                images = batch[start : start + _IMAGES_A_STEP]
                values = dict(zip(read, session.run(read, {INPUT_NAME: images}), strict=True))
                for name, value in ({INPUT_NAME: images} | values).items():
                    fixed = _FIXED.get(self._plan.makers.get(name, ""))
                    self._observed.setdefault(name, Observed(fixed)).add(torch.from_numpy(value.copy()))

    def _find_ranges(self, levels: int) -> tuple[Mapping[str, Range], ...]:
        widest = {name: observed.min_max() for name, observed in self._observed.items()}
        if self._spec.observer != "histogram":
            return (widest,)
        return widest, {name: seen.least_squares(levels) for name, seen in self._observed.items()}

    def _rounded(self, grid: Grid, ranges: Mapping[str, Range]) -> onnx.ModelProto:
        """Return the graph with its operands rounded."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        constants = {item.name: item for item in graph.initializer}
        rounded: dict[str, list[onnx.NodeProto]] = {}
        for operand in self._plan.operands:
            made = f"{operand.name}/rounded" + (f"/{operand.outputs.axis}" if operand.outputs else "")
            if operand.name in constants:
                if made not in constants:
                    values = self._round_constant(
                        numpy_helper.to_array(constants[operand.name]), operand, grid
                    )
                    constants[made] = numpy_helper.from_array(values, made)
                    graph.initializer.append(constants[made])
            elif operand.name not in rounded:
                rounded[operand.name] = list(self._round_nodes(graph, operand.name, made, grid, ranges))
            if operand.node < len(graph.node):
                graph.node[operand.node].input[operand.position] = made
        if OUTPUT_NAME in rounded:
            graph.output[0].name = f"{OUTPUT_NAME}/rounded"
        nodes = [*rounded.get(INPUT_NAME, ())]
        for node in graph.node:
            nodes += [node, *(extra for name in node.output for extra in rounded.get(name, ()))]
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        return model

    def _round_constant(
        self, values: NDArray[np.float32], operand: Operand, grid: Grid
    ) -> NDArray[np.float32]:
        tensor = torch.from_numpy(values.copy())
        if self._spec.precision in _HALF:
            tensor = tensor.to(torch.float16 if self._spec.precision == "fp16" else torch.bfloat16).float()
        elif operand.outputs:
            tensor = round_weight(tensor, operand.outputs, self._spec, grid)
        else:
            tensor = Range.of(tensor).round(tensor, grid.activation_levels)
        found: NDArray[np.float32] = tensor.numpy()
        return found

    def _round_nodes(
        self, graph: onnx.GraphProto, name: str, made: str, grid: Grid, ranges: Mapping[str, Range]
    ) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that make `made`, which is `name` rounded."""
        if self._spec.precision in _HALF:
            yield helper.make_node("Cast", [name], [f"{made}/half"], to=_HALF[self._spec.precision])
            yield helper.make_node("Cast", [f"{made}/half"], [made], to=TensorProto.FLOAT)
            return
        integers, scale, zero = (f"{made}/{part}" for part in ("integers", "scale", "zero"))
        if self._spec.activations == "dynamic":
            yield helper.make_node("DynamicQuantizeLinear", [name], [integers, scale, zero])
        else:
            affine = ranges[name].affine(grid.activation_levels)
            if affine is None:
                yield helper.make_node("Identity", [name], [made])
                return
            graph.initializer.append(numpy_helper.from_array(np.array(affine.scale, np.float32), scale))
            graph.initializer.append(numpy_helper.from_array(np.array(affine.zero_point, np.uint8), zero))
            yield helper.make_node("QuantizeLinear", [name, scale, zero], [integers])
        yield helper.make_node("DequantizeLinear", [integers, scale, zero], [made])


def _fold(data: bytes) -> onnx.ModelProto:
    """Return the graph with constants computed and batch norms in the weights before them, in float."""
    options = _options()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _open(model: onnx.ModelProto) -> InferenceSession:
    options = _options()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    return InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _options() -> SessionOptions:
    options = SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return options
