"""A replayed sweep with a known truth: two pruning levels, two precisions, two runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import RunInfo
from quant_explorer.analysis.sweep.findings import SeedFindings, examine_seed
from quant_explorer.core.cost.counts import LayerCost, ModelCost
from quant_explorer.core.cost.records import FloatModel, MachinePeaks
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.core.settings.plan import Budgets, Cell, SweepPlan
from quant_explorer.core.study import StudyFile
from quant_explorer.testing.replay import Played, Scene, play

RUN = RunInfo(Settings(data="toy"), MeasurementProtocol(batch_sizes=(1, 8)))
CELLS = (
    Cell("fp32_baseline", 0.0, "fp32"),
    Cell("int8", 0.0, "int8"),
    Cell("pruned50_fp32", 0.5, "fp32"),
    Cell("pruned50_int8", 0.5, "int8"),
)
PLAN = SweepPlan(model="small_cnn", seeds=(0,), cells=CELLS, budgets=(Budgets(),))
PRUNED = ("prune()", "fine_tune()")

# 400 images: INT8 loses 1 %, pruning 2 %, both 4 %: 1 % beyond the sum of the two.
GRID = (
    Played("fp32_baseline", wrong=40, size_bytes=1_000_000),
    Played("int8", slowness=0.25, wrong=44, size_bytes=250_000, int8_macs=1000),
    Played("pruned50_fp32", slowness=0.5, wrong=48, size_bytes=300_000, steps=PRUNED),
    Played("pruned50_int8", slowness=0.125, wrong=56, size_bytes=80_000, int8_macs=1000, steps=PRUNED),
    Played("fp32_finetune", wrong=36, size_bytes=1_000_000, steps=("fine_tune()",)),
)


def layer(name: str, macs: int, parameters: int) -> LayerCost:
    return LayerCost(name, "Conv2d", (1, 3, 8, 8), (1, 4, 8, 8), macs, parameters, 192, 256)


FULL = FloatModel(
    "small_cnn", (), ModelCost((3, 8, 8), (layer("conv", 900, 100), layer("fc", 100, 60)), 448, "conv")
)
HALF = FloatModel(
    "small_cnn",
    ("prune()",),
    ModelCost((3, 8, 8), (layer("conv", 450, 50), layer("fc", 50, 30)), 320, "conv"),
    (32, 16),
)
PEAKS = MachinePeaks(
    "env-a", Peaks(1, {"fp32": 100.0, "int8": 400.0}, 10.0, {"fp32": "matmul"}, {"fp16": "no kernel"})
)


def swept(
    folder: Path,
    played: Sequence[Played] = GRID,
    plan: SweepPlan = PLAN,
    *,
    seed: int = 0,
    scene: Scene | None = None,
    inspected: bool = True,
) -> SeedFindings:
    """Play a sweep's study and derive its figures."""
    study: StudyFile = play(folder / f"study-{seed}.jsonl", played, scene)
    for record in (FULL, HALF, PEAKS) if inspected else ():
        study.append(record)
    results = summarize(study, RUN, draws=200)
    return examine_seed(seed, study, results, plan)
