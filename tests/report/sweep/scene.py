"""Rows of a sweep that was never run: plausible figures, each a plain function of its place in the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np

from quant_explorer.analysis.hardware.rows import LayerRow
from quant_explorer.analysis.sweep.rows import SweepRow
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.stats.frontier import Objective, on_frontier

LEVELS = (0.0, 0.25, 0.5, 0.7)
PRECISIONS = ("fp32", "bf16", "int8")
RUNTIMES = ("eager", "torchscript", "inductor", "onnxruntime", "openvino", "executorch")
PEAKS = Peaks(2, {"fp32": 82.4, "bf16": 41.0, "int8": 301.5}, 14.2, reasons={"fp16": "no such kernel"})

SPEED = dict(zip(RUNTIMES, (1.0, 0.86, 0.6, 0.41, 0.38, 0.93), strict=True))
FASTER = {"fp32": 1.0, "bf16": 1.3, "int8": 0.47}
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
WORSE_PP = {"fp32": 0.0, "bf16": 0.03, "int8": 0.5}
COMPARED = (
    Objective("size_bytes", "minimize", ""),
    Objective("latency_p50_s", "minimize", ""),
    Objective("top1", "maximize", ""),
)


def row(**figures: Any) -> SweepRow:
    """Return a measured row in which all that is not given is missing."""
    given: dict[str, Any] = {
        "seed": 0, "config": "fp32_baseline", "runtime": "eager", "status": "ok", "over_budget": "",
        "notes": "", "digest": "0" * 16, **figures,
    }  # fmt: skip
    all_figures: dict[str, Any] = {field.name: given.get(field.name) for field in fields(SweepRow)}
    return SweepRow(**all_figures)


def variant(pruning: float, precision: str, runtime: str, seed: int = 0, level: int = 0) -> SweepRow:
    """Return one cell of the grid on one runtime."""
    wobble = ((level * 7 + RUNTIMES.index(runtime) * 3 + BYTES[precision] + seed * 5) % 11 - 5) / 100
    kept = (1 - pruning) ** 1.6
    latency = 0.0212 * SPEED[runtime] * FASTER[precision] * (0.12 + 0.88 * kept) * (1 + wobble)
    top1 = 0.914 - 0.065 * pruning**2 - WORSE_PP[precision] / 100 + wobble / 60 + seed * 0.002
    parameters = 2_300_000 * kept
    macs = 301e6 * kept
    intensity = macs / (BYTES[precision] * (parameters + 6.7e6 * (1 - 0.8 * pruning)))
    size = int(parameters * BYTES[precision] + 40_000 + 9_000 * RUNTIMES.index(runtime))
    rejected = [f"top-1 {-top1:.3f}"] * (top1 < 0.885) + ["latency"] * (latency > 0.02)
    config = f"pruned{100 * pruning:g}_{precision}" if pruning else precision.replace("fp32", "fp32_baseline")
    return row(
        seed=seed, config=config, runtime=runtime, pruning=pruning, precision=precision, size_bytes=size,
        top1=top1, top1_low=top1 - 0.006, top1_high=top1 + 0.0056, over_budget="; ".join(rejected),
        latency_p50_s=latency, latency_low_s=latency * 0.985, latency_high_s=latency * 1.02,
        peak_memory_bytes=int(size * 1.4 + 9e6 * (1 - 0.7 * pruning) * (1 + RUNTIMES.index(runtime) / 4)),
        macs_per_byte=intensity, gmacs_per_s=macs / latency / 1e9,
    )  # fmt: skip


def grid(
    levels: Sequence[float] = LEVELS, runtimes: Sequence[str] = RUNTIMES, seeds: Sequence[int] = (0,)
) -> list[SweepRow]:
    """Return every level in every precision on every runtime, those on the frontier of each seed marked."""
    rows = []
    for seed in seeds:
        cells = product(enumerate(levels), PRECISIONS, runtimes)
        rows_of_seed = [
            variant(level, some, runtime, seed, number) for (number, level), some, runtime in cells
        ]
        figures = np.array(
            [[row.size_bytes, row.latency_p50_s, row.top1] for row in rows_of_seed], np.float64
        )
        best = on_frontier(figures, COMPARED)
        rows += [replace(row, on_frontier=bool(kept)) for row, kept in zip(rows_of_seed, best, strict=True)]
    return rows


def layers(
    count: int, levels: Sequence[float] = LEVELS, precisions: Sequence[str] = ("int8", "fp32")
) -> list[LayerRow]:
    """Return the layers of a network that gets narrower the more it is pruned."""
    return [
        LayerRow(
            pruning=level, precision=precision, layer=f"features.{number}.block.{number % 4}.conv",
            kind="Conv2d", calls=1, input_shape="1x16x32x32", output_shape="1x16x32x32",
            macs=int((1 - level) ** 2 * 1e6 * (1 + 9 * (number * 5 % 13))),
            parameters=2_300, weight_bytes=2_300 * BYTES[precision],
            activation_bytes=int((1 - level) * 40_000 * (1 + (count - number) % 9) * BYTES[precision]),
            macs_per_byte=12.0, bound="memory", roof_s=None,
        )
        for level, precision, number in product(levels, precisions, range(count))
    ]  # fmt: skip
