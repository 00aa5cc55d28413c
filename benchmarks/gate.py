"""How often the gate alarms on repeats of an unchanged run, and how often it finds what is planted.

One run is built and measured. Each repeat measures the same artifacts anew with the same command, in a copy
of the run folder without its study, and is held against the first by `quant-explorer gate`'s rules at their
defaults. Then, for every variant of each repeat in turn, a slowdown is planted in its timed calls (each takes
longer by that share) and a drop of accuracy in its predictions (images of the report split that it got right
turn wrong, at random): the gate must name that variant.

Nothing else should run.

    python benchmarks/gate.py --output results/benchmarks/gate.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from quant_explorer.analysis.decide.regression import gate
from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import Results
from quant_explorer.core.measurement import Block, Measurement, Predictions, Round, Status
from quant_explorer.core.recipe import BASELINE_CONFIG
from quant_explorer.core.settings.limits import GateLimits
from quant_explorer.core.study import Record, StudyFile
from quant_explorer.machine.environment import describe_environment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.recorded import Study

SLOWDOWN, DROP = 0.10, 0.02
CONFIGS = (BASELINE_CONFIG, "fp16", "dynamic_int8", "static_int8_per_tensor", "static_int8_per_channel")
RUNTIMES = ("onnxruntime", "openvino")


@dataclass
class Found:
    """What the gate said so far; `missed` names the variant and the repeat of each plant it did not find."""

    alarms: list[str] = field(default_factory=list)
    planted: int = 0
    missed: list[str] = field(default_factory=list)


def main() -> None:
    """Measure, plant, and print what the gate said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--runtime", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    unchanged = Found()
    planted = {kind: Found() for kind in PLANTS}
    widths: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        first = Path(temporary) / "first"
        before = measure(first, arguments.runtime).results
        if any(check.disturbed for check in before.aa):
            raise SystemExit("other work took the measuring cores: no latency would be held")
        for number in range(arguments.repeats):
            folder = Path(temporary) / "repeat"
            shutil.copytree(first, folder)
            run = RunFolder(folder)
            run.study.unlink()
            shutil.rmtree(run.report)
            recorded = measure(folder, arguments.runtime)
            unchanged.alarms += [f"repeat {number}: {alarm}" for alarm in alarms(recorded.results, before)]
            widths += half_widths(recorded.results)
            for kind, found in planted.items():
                plant_everywhere(recorded, before, kind, found, number)
            shutil.rmtree(folder)
            print(f"repeat {number + 1} of {arguments.repeats}: {len(unchanged.alarms)} alarms", flush=True)
            figures = describe(number + 1, before, arguments.runtime, widths, unchanged, planted)
            if arguments.output:
                arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def describe(
    repeats: int,
    before: Results,
    runtimes: list[str],
    widths: list[float],
    unchanged: Found,
    planted: dict[str, Found],
) -> dict[str, object]:
    """Return the figures for JSON."""
    return {
        "cpu": describe_environment(threads=1, packages=()).cpu,
        "repeats": repeats,
        "variants": sum(variant.status is Status.OK for variant in before.variants),
        "runtimes": runtimes,
        "half_width_of_speedups_median": round(float(np.median(widths)), 4),
        "false_alarms": unchanged.alarms,
        **{
            f"{kind}_{amount:.0%}": {
                "planted": planted[kind].planted,
                "found": planted[kind].planted - len(planted[kind].missed),
                "missed": planted[kind].missed,
                "alarms_on_others": planted[kind].alarms,
            }
            for kind, amount in (("slowdown", SLOWDOWN), ("drop", DROP))
        },
    }


def measure(folder: Path, runtimes: list[str]) -> Study:
    """Run the pipeline in a folder, as a person would."""
    command = [str(Path(sys.executable).parent / "quant-explorer"), "pipeline", "--run-dir", str(folder)]
    chosen = ("--config", ",".join(CONFIGS), "--runtime", ",".join(runtimes))
    protocol = ("--batch-sizes", "1", "--most-rounds", "10")
    subprocess.run([*command, *chosen, *protocol, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return Study.load(folder)


def alarms(results: Results, baseline: Results) -> list[str]:
    """Return each rule that failed, with its variant."""
    checks = gate(results, baseline, GateLimits())
    return [
        f"{check.variant}, {check.rule}: {check.message}" for check in checks if check.verdict == "failed"
    ]


def half_widths(results: Results) -> list[float]:
    """Return the half widths of the speed-ups at batch 1, relative to them."""
    latencies = [variant.latency["1"] for variant in results.variants if "1" in variant.latency]
    return [
        latency.speedup_ci.half_width / latency.speedup
        for latency in latencies
        if latency.speedup and latency.speedup_ci
    ]


def plant_everywhere(recorded: Study, before: Results, kind: str, found: Found, number: int) -> None:
    """Plant in one variant after the other, and note what the gate says of it and of the others."""
    for variant in before.variants:
        # Speeds are ratios to the baseline: what is planted in it slows down nothing else.
        if variant.status is not Status.OK or variant.config == BASELINE_CONFIG:
            continue
        records = PLANTS[kind](recorded.records, variant.digest, np.random.default_rng(number))
        changed = summarize(StudyFile(recorded.records.path, records), recorded.run)
        failed = alarms(changed, before)
        named = [alarm for alarm in failed if alarm.startswith(f"{variant.name}, ")]
        found.planted += 1
        if not named:
            found.missed.append(f"{variant.name}, repeat {number}")
        found.alarms += [f"repeat {number}: {alarm}" for alarm in failed if alarm not in named]


def slow_down(study: StudyFile, digest: str, generator: np.random.Generator) -> list[Record]:
    """Let every timed call of a variant take `SLOWDOWN` longer."""
    return [
        replace(
            record,
            passes=tuple(tuple(_stretch(block, digest) for block in blocks) for blocks in record.passes),
        )
        if isinstance(record, Round)
        else record
        for record in study.records
    ]


def _stretch(block: Block, digest: str) -> Block:
    if block.key != digest:
        return block
    return Block(block.key, tuple(round(ns * (1 + SLOWDOWN)) for ns in block.calls_ns))


def drop_accuracy(study: StudyFile, digest: str, generator: np.random.Generator) -> list[Record]:
    """Let a variant be wrong on `DROP` of the report split, on images that it got right."""
    return [
        replace(record, predictions=_spoil(record.predictions, study.splits[record.split].labels, generator))
        if isinstance(record, Measurement) and record.variant.digest == digest and record.predictions
        else record
        for record in study.records
    ]


def _spoil(predictions: Predictions, labels: tuple[int, ...], generator: np.random.Generator) -> Predictions:
    own = np.array(labels)[list(predictions.positions)]
    top1 = np.array(predictions.top1)
    chosen = generator.choice(np.flatnonzero(top1 == own), round(DROP * len(top1)), replace=False)
    top1[chosen] = (top1[chosen] + 1) % (own.max() + 1)
    return replace(predictions, top1=tuple(top1.tolist()))


Plant = Callable[[StudyFile, str, np.random.Generator], list[Record]]
PLANTS: dict[str, Plant] = {"slowdown": slow_down, "drop": drop_accuracy}


if __name__ == "__main__":
    main()
