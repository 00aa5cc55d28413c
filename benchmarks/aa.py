"""How often the A/A comparison cries wolf on this machine, and what slowdown it sees.

Opens one FP32 artifact twice in each round, in fresh processes, and times the two against each other by
the rules of every comparison (docs/methodology.md). A comparison in which the 95 % interval of the
ratio leaves out 1 is a false alarm. Then the recorded times of one side are stretched by a known
factor: the share of comparisons that see it is the power.

    python benchmarks/aa.py --comparisons 100
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.progress import Silent
from quant_explorer.core.settings import MeasurementProtocol, Settings
from quant_explorer.core.stats import ratio_interval, round_medians, wilson
from quant_explorer.machine.environment import describe_environment
from quant_explorer.pipeline.build import build, create_runtime
from quant_explorer.pipeline.measure import open_worker
from quant_explorer.pipeline.prepare import Preparation
from quant_explorer.pipeline.run import open_run
from quant_explorer.pipeline.space import BASELINE_CONFIG, recipes
from quant_explorer.pipeline.subject import load_subject
from quant_explorer.runtimes import RUNTIMES

SLOWDOWNS = (0.01, 0.02, 0.03, 0.05, 0.10)


def main() -> None:
    """Run the comparisons and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), default="eager")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    settings = Settings(data="mnist5k", model="small_cnn", data_dir=Path("data"), train_subset=1000)
    protocol = MeasurementProtocol(rounds=arguments.rounds)
    chosen = {arguments.runtime: RUNTIMES[arguments.runtime]}
    recipe = recipes((BASELINE_CONFIG,), chosen, settings, protocol)[-1]
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    with tempfile.TemporaryDirectory() as folder, open_run(Path(folder)) as run:
        # The weights' values do not matter to the time, so nothing is trained.
        subject = load_subject(settings, run, Silent(), train=False)
        artifact = build(recipe, Preparation(subject, run), create_runtime(recipe, RUNTIMES), protocol)
        for number in range(arguments.comparisons):
            rng = np.random.default_rng(number)
            rounds = []
            for _ in range(arguments.rounds):
                runtime = create_runtime(recipe, RUNTIMES)
                with (
                    open_worker(artifact, runtime, run, protocol) as first,
                    open_worker(artifact, runtime, run, protocol) as second,
                ):
                    workers = (first, second)
                    for worker in workers:
                        worker.open(subject.batch(1))
                    calls = {
                        side: workers[side].time(protocol.warmup_calls)
                        for side in rng.permutation(2).tolist()
                    }
                rounds.append((calls[0], calls[1]))
            pairs.append(
                (round_medians([one for one, _ in rounds]), round_medians([two for _, two in rounds]))
            )
            ratio, interval = ratio_interval(*pairs[-1])
            print(f"{number + 1}: {ratio:.4f} [{interval.low:.4f}, {interval.high:.4f}]", flush=True)
    report(pairs, arguments.runtime, arguments.rounds, arguments.output)


def report(
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]], runtime: str, rounds: int, path: Path | None
) -> None:
    """Print the false-alarm rate with its Wilson interval, and the power for each slowdown."""
    alarms = sum(not ratio_interval(one, two)[1].contains(1.0) for one, two in pairs)
    interval = wilson(alarms, len(pairs))
    environment = describe_environment(threads=1, packages=("numpy", *RUNTIMES[runtime]().versions()))
    figures = {
        "runtime": runtime,
        "comparisons": len(pairs),
        "rounds": rounds,
        "false_alarms": alarms,
        "false_alarm_rate_ci": [round(interval.low, 4), round(interval.high, 4)],
        "detected": {
            f"{slowdown:.0%}": sum(
                ratio_interval(one, two * (1 + slowdown))[1].high < 1.0 for one, two in pairs
            )
            for slowdown in SLOWDOWNS
        },
        "cpu": environment.cpu,
        "versions": environment.versions,
    }
    print(json.dumps(figures, indent=2))
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
