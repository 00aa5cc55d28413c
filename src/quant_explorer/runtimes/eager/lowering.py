"""How `eager` and `torchscript` lower: a traced graph with folded batch norms, cast or quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.quantspec import FULL_RANGE, Grid
from quant_explorer.runtimes.torch_graph import fusion, half


@dataclass(frozen=True)
class LoweredGraph:
    """A graph in the precision asked for, what a reader of the report should know of it, and INT8's grid."""

    module: torch.fx.GraphModule
    notes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    grid: Grid = FULL_RANGE


def lower(candidate: Candidate, calibration: Sequence[Batch], engine: str | None) -> LoweredGraph:
    """Return the graph of the candidate in the precision of its spec: float32 images to logits.

    `engine` is the quantized engine for INT8, None for other precisions. Raises UnsupportedError when the
    model cannot be traced or has an operator without this precision.
    """
    spec = candidate.spec
    if engine is not None:
        from quant_explorer.runtimes.torch_graph import fx

        return fx.quantize(candidate, calibration, engine)
    graph = fusion.fuse(candidate.model, calibration[0])
    if spec.precision == "fp32":
        return LoweredGraph(graph, notes=())
    emulated = half.explain_emulation(spec.precision)
    module, notes = half.cast(graph, spec.precision, spec.float_layers, calibration[0][:1])
    return LoweredGraph(module, notes=(emulated, *notes) if emulated else notes)
