"""What differences this machine resolves, how often equal files differ, and what slowdown is seen.

FP32 of each runtime is opened twice in every round, in fresh processes, and timed in passes as in every
comparison (docs/methodology.md).
A pair whose 95 % interval leaves out 1 is a false alarm. Then the recorded times
of one side are stretched by a known factor: the share of pairs that show it is the power. The spread of a
round's log ratio is given for fewer passes too.

    python benchmarks/resolution.py --runtime eager onnxruntime openvino --comparisons 5
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quant_explorer.analysis.latency import collect_timings
from quant_explorer.core.artifact import Artifact
from quant_explorer.core.measurement import Block, Round
from quant_explorer.core.progress import Silent
from quant_explorer.core.recipe import BASELINE_CONFIG
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.machine.environment import describe_environment
from quant_explorer.pipeline.building.build import build, create_runtime
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.measure import open_worker
from quant_explorer.pipeline.plan.space import recipes
from quant_explorer.pipeline.run import RunFolder, open_run
from quant_explorer.pipeline.subject import Subject, load_subject
from quant_explorer.pipeline.timing.comparison import interleave
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.stats.contrasts import FIRST_PASSES
from quant_explorer.stats.intervals import wilson

SLOWDOWNS = (0.01, 0.02, 0.03, 0.05, 0.10)
AGAIN = " again"


def main() -> None:
    """Time the comparisons and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runtime", nargs="+", choices=tuple(RUNTIMES), default=["eager", "onnxruntime"])
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    settings = Settings(data="mnist5k", model="small_cnn", train_subset=1000)
    protocol = MeasurementProtocol(rounds=arguments.rounds)
    chosen = {name: RUNTIMES[name] for name in arguments.runtime}
    with tempfile.TemporaryDirectory() as folder, open_run(Path(folder)) as run:
        # The weights' values do not matter to the time, so nothing is trained.
        subject = load_subject(settings, run, Silent(), train=False)
        wanted = recipes((BASELINE_CONFIG,), chosen, settings, protocol)
        preparation = Preparation(subject, run)
        built = {
            recipe.name: build(recipe, preparation, create_runtime(recipe, RUNTIMES), protocol)
            for recipe in wanted
        }
        studies = []
        for number in range(arguments.comparisons):
            seeds = [(number, index) for index in range(arguments.rounds)]
            studies.append([time_round(built, subject, run, protocol, seed) for seed in seeds])
            print(f"comparison {number + 1} of {arguments.comparisons}", flush=True)
    figures = summarize(studies, tuple(built)) | describe(tuple(chosen))
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


def time_round(
    built: dict[str, Artifact],
    subject: Subject,
    run: RunFolder,
    protocol: MeasurementProtocol,
    seed: tuple[int, int],
) -> Round:
    """Open every artifact twice, and time all in passes with the first one as the baseline."""
    rng = np.random.default_rng(seed)
    keys = [key for name in built for key in (name, name + AGAIN)]
    with contextlib.ExitStack() as stack:
        workers = {}
        for key in keys:
            artifact = built[key.removesuffix(AGAIN)]
            runtime = create_runtime(artifact.manifest.recipe, RUNTIMES)
            workers[key] = stack.enter_context(open_worker(artifact, runtime, run, protocol))
        for worker in workers.values():
            worker.open(subject.batch(1))
        passes = [
            tuple(
                Block(key, workers[key].time(protocol.warmup_calls)) for key in interleave(keys, keys[0], rng)
            )
            for _ in range(FIRST_PASSES)
        ]
    return Round("here", "all", 1, seed[1], tuple(passes))


def summarize(studies: Sequence[Sequence[Round]], names: Sequence[str]) -> dict[str, object]:
    """Return resolutions, false alarms and power over all pairs, and the spread of rounds by passes."""
    widths, alarms = [], 0
    seen = dict.fromkeys(SLOWDOWNS, 0)
    spreads: dict[str, list[float]] = {f"{count} passes": [] for count in (1, 3, FIRST_PASSES)}
    for rounds in studies:
        keys = [key for name in names for key in (name, name + AGAIN)]
        timings = collect_timings(rounds, names[0], keys)
        for name in names:
            found = timings.compare(name + AGAIN, name)
            assert not isinstance(found, str), found
            ratio, interval = found
            widths.append(interval.half_width / ratio)
            alarms += not interval.contains(1.0)
            for slowdown in SLOWDOWNS:
                seen[slowdown] += interval.high / (1 + slowdown) < 1.0
        for count in (1, 3, FIRST_PASSES):
            fewer = [replace(one, passes=one.passes[:count]) for one in rounds]
            less = collect_timings(fewer, names[0], keys)
            spreads[f"{count} passes"] += [float(np.std(less.log_ratios(key, names[0]))) for key in keys[1:]]
    pairs = len(widths)
    rate = wilson(alarms, pairs)
    return {
        "pairs": pairs,
        "false_alarms": alarms,
        "false_alarm_rate_ci": [round(rate.low, 4), round(rate.high, 4)],
        "detected": {f"{slowdown:.0%}": count for slowdown, count in seen.items()},
        "resolution_median": float(np.median(widths)),
        "resolution_p90": float(np.quantile(widths, 0.9)),
        "sd_of_a_round_log_ratio": {name: float(np.median(values)) for name, values in spreads.items()},
    }


def describe(runtimes: Sequence[str]) -> dict[str, object]:
    """Return what the figures were taken with."""
    packages = {package for name in runtimes for package in RUNTIMES[name]().versions()}
    environment = describe_environment(threads=1, packages=packages)
    return {"runtimes": list(runtimes), "cpu": environment.cpu, "versions": environment.versions}


if __name__ == "__main__":
    main()
