"""What differences this machine resolves, how often equal files differ, and what slowdown is found.

Each of several artifacts is a contender twice in every comparison, timed as in a run (docs/methodology.md):
two openings of the same files a round are an A/A pair. A pair whose 95 % interval leaves out 1 is a false
alarm. A slowdown is planted by stretching one side; it is found when the interval holds slowdowns only. Four
ways to compare the same blocks are set beside each other, so at equal wall time:

- baselines near: the product's, log of a block over the median of the four blocks of the baseline before and
  the four after it, median over passes;
- two baselines: the same with one block of the baseline before and one after;
- within a pass: the difference of two blocks of a pass, median over passes, which is the additive model of
  (round, pass) and variant effects fitted by medians;
- all of a round: the ratio of the medians of all calls of a round.

Nothing else should run, but for the load that is asked for: a process that computes and sleeps for 0.3 to 3 s
in turn, on the measuring core or on another.

    python benchmarks/resolution.py --comparisons 5 --output results/benchmarks/resolution.json
    python benchmarks/resolution.py --comparisons 4 --load "same core" \\
        --runtime onnxruntime openvino executorch --output results/benchmarks/resolution_same_core.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.latency import Timings, check_twins, collect_timings
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.measurement import Measurement, Round, Status, Variant
from quant_explorer.core.progress import Silent
from quant_explorer.core.recipe import BASELINE_CONFIG
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.core.study import StudyFile
from quant_explorer.machine.environment import describe_environment
from quant_explorer.machine.topology import core_numbers, measuring_cores
from quant_explorer.pipeline.building.build import build, create_runtime
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.plan.space import recipes
from quant_explorer.pipeline.run import open_run
from quant_explorer.pipeline.subject import load_subject
from quant_explorer.pipeline.timing.contender import Contender
from quant_explorer.pipeline.timing.rounds import time_variants
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.stats.contrasts import log_contrasts
from quant_explorer.stats.intervals import median_interval, wilson

CONFIGS = (BASELINE_CONFIG, "static_int8_per_channel", "dynamic_int8", "static_int8_per_tensor")
SLOWDOWNS = (0.02, 0.05, 0.10)
AGAIN = "-again"
SETTINGS = Settings(data="mnist5k", model="small_cnn", train_subset=1000)
_LOAD = """
import os, random, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
while True:
    end = time.monotonic() + random.uniform(0.3, 3)
    while time.monotonic() < end:
        pass
    time.sleep(random.uniform(0.3, 3))
"""


def log_near(timings: Timings, key: str, reference: str) -> NDArray[np.float64]:
    """The product's log ratio of each round."""
    return timings.log_ratios(key, reference)


def log_two_baselines(timings: Timings, key: str, reference: str) -> NDArray[np.float64]:
    """Median over passes of the difference of two contrasts with one baseline on each side."""
    ratios = []
    for round_ in timings.rounds:
        found = []
        for blocks in round_.passes:
            times = np.array([np.median(block.calls_ns) for block in blocks])
            contrasts = log_contrasts([block.key for block in blocks], times, timings.baseline, near=1)
            found.append(contrasts[key] - contrasts[reference])
        ratios.append(float(np.median(found)))
    return np.array(ratios)


def log_within_pass(timings: Timings, key: str, reference: str) -> NDArray[np.float64]:
    """Median over passes of the log ratio of two blocks of the same pass."""
    ratios = []
    for round_ in timings.rounds:
        passes = [
            {block.key: np.log(np.median(block.calls_ns)) for block in blocks} for blocks in round_.passes
        ]
        ratios.append(float(np.median([logs[key] - logs[reference] for logs in passes])))
    return np.array(ratios)


def log_all_of_a_round(timings: Timings, key: str, reference: str) -> NDArray[np.float64]:
    """Log ratio of the medians of all calls of a round."""
    medians = [[np.median(round_.calls_ns(name)) for name in (key, reference)] for round_ in timings.rounds]
    return np.array([float(np.log(own / other)) for own, other in medians])


SCHEMES: dict[str, Callable[[Timings, str, str], NDArray[np.float64]]] = {
    "baselines near": log_near,
    "two baselines": log_two_baselines,
    "within a pass": log_within_pass,
    "all of a round": log_all_of_a_round,
}


@dataclass
class Found:
    """What one scheme found of all pairs so far."""

    spreads: list[float] = field(default_factory=list)
    half_widths: list[float] = field(default_factory=list)
    false_alarms: int = 0
    detected: dict[float, int] = field(default_factory=lambda: dict.fromkeys(SLOWDOWNS, 0))

    def add(self, logs: NDArray[np.float64]) -> None:
        """Judge the log ratios of one pair, a value a round."""
        ratio, interval = median_interval(np.exp(logs))
        self.spreads.append(float(np.std(logs)))
        self.half_widths.append(interval.half_width / ratio)
        self.false_alarms += not interval.contains(1.0)
        for slowdown in SLOWDOWNS:
            self.detected[slowdown] += interval.low * (1 + slowdown) > 1.0

    def describe(self) -> dict[str, object]:
        """Return the figures for JSON."""
        pairs = len(self.half_widths)
        rate = wilson(self.false_alarms, pairs)
        return {
            "pairs": pairs,
            "half_width_median": round(float(np.median(self.half_widths)), 4),
            "half_width_p90": round(float(np.quantile(self.half_widths, 0.9)), 4),
            "sd_of_a_round_log_ratio": round(float(np.median(self.spreads)), 4),
            "false_alarms": self.false_alarms,
            "false_alarm_rate_ci": [round(rate.low, 4), round(rate.high, 4)],
            "detected": {f"{slowdown:.0%}": count for slowdown, count in self.detected.items()},
        }


def main() -> None:
    """Run the comparisons and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--artifacts", type=int, default=20)
    parser.add_argument("--runtime", nargs="+", choices=tuple(RUNTIMES), default=list(RUNTIMES))
    parser.add_argument("--load", choices=("none", "other core", "same core"), default="none")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    protocol = MeasurementProtocol(rounds=arguments.rounds, most_rounds=arguments.rounds, batch_sizes=(1,))
    with tempfile.TemporaryDirectory() as folder, open_run(Path(folder)) as run:
        # The weights' values do not matter to the time, so nothing is trained.
        subject = load_subject(SETTINGS, run, Silent(), train=False)
        experiment = Experiment(subject, run, protocol)
        pairs = build_pairs(experiment, arguments.runtime, arguments.artifacts)
        found = {name: Found() for name in SCHEMES}
        seconds, noisy = [], 0
        for number in range(arguments.comparisons):
            study = StudyFile(Path(folder) / f"{number}.jsonl")
            seeded = replace(subject, settings=replace(SETTINGS, seed=number))
            with load(arguments.load):
                problems = time_variants(pairs[0], pairs[1:], replace(experiment, subject=seeded), study)
            assert not problems, problems
            rounds = study.rounds("here", 1)
            seconds.append(sum((round_.opening_s or 0) + (round_.timing_s or 0) for round_ in rounds))
            noisy += judge(rounds, pairs, found)
            print(f"comparison {number + 1} of {arguments.comparisons}: {seconds[-1]:.0f} s", flush=True)
    environment = describe_environment(threads=1, packages=())
    figures = {
        "cpu": environment.cpu,
        "load": arguments.load,
        "variants": len(pairs),
        "runtimes": arguments.runtime,
        "comparisons": arguments.comparisons,
        "rounds": arguments.rounds,
        "seconds_a_comparison": round(float(np.median(seconds)), 1),
        "called_too_noisy": noisy,
        "schemes": {name: scheme.describe() for name, scheme in found.items()},
    }
    print(json.dumps(figures, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


def build_pairs(experiment: Experiment, runtimes: Sequence[str], count: int) -> list[Contender]:
    """Build up to `count` artifacts, and return each as two contenders, the baseline first."""
    chosen = {name: RUNTIMES[name] for name in runtimes}
    preparation = Preparation(experiment)
    contenders: list[Contender] = []
    for recipe in recipes(CONFIGS, chosen, SETTINGS, experiment.protocol):
        runtime = create_runtime(recipe, RUNTIMES)
        try:
            artifact = build(recipe, preparation, runtime)
        except UnsupportedError as error:
            print(f"{recipe.name}: {error}")
            continue
        for suffix in ("", AGAIN):
            variant = Variant(
                recipe.name,
                recipe.config,
                recipe.runtime,
                experiment.subject.model_name,
                artifact.folder.name + suffix,
            )
            contenders.append(Contender(artifact, runtime, Measurement(variant, "here", "none", Status.OK)))
        if len(contenders) == 2 * count:
            break
    return contenders


@contextlib.contextmanager
def load(where: str) -> Iterator[None]:
    """Let other work come and go meanwhile."""
    (core,) = measuring_cores(1)
    if where == "none":
        yield
        return
    chosen = (
        core
        if where == "same core"
        else next(core_number for core_number in core_numbers() if core_number != core)
    )
    with subprocess.Popen([sys.executable, "-c", _LOAD, str(chosen)]) as process:
        try:
            yield
        finally:
            process.kill()


def judge(rounds: Sequence[Round], pairs: Sequence[Contender], found: dict[str, Found]) -> bool:
    """Add what each scheme finds of the pairs, and return whether the report would say "too noisy"."""
    digests = [pair.digest for pair in pairs]
    timings = collect_timings(rounds, digests[0], digests)
    for digest in digests[::2]:
        for name, scheme in SCHEMES.items():
            found[name].add(scheme(timings, digest + AGAIN, digest))
    (check,) = check_twins(timings, "", 1, ())
    return check.too_noisy


if __name__ == "__main__":
    main()
