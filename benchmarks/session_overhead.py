"""What our Session costs over the bare call of its runtime, at batch 1, in one interleaved run.

Each runtime gets a fresh pinned process that opens one artifact of `small_cnn` through our Session and
once more as docs/deploy.md does. Blocks of calls of the two alternate; the figure is the ratio of medians,
block pair by block pair.

    python benchmarks/session_overhead.py
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.machine.environment import describe_environment
from quant_explorer.machine.process import thread_environment
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.runtimes import RUNTIMES

SPECS = {"fp32": QuantSpec(), "static_int8_per_channel": QuantSpec("int8", "static")}
SHAPE = (3, 32, 32)
PAIRS, BLOCK_S = 40, 0.025


def main() -> None:
    """Lower, time each in a process of its own, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), action="append")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    parser.add_argument("--child", nargs=3, metavar=("RUNTIME", "OPTIONS", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(time_pair(*arguments.child)))
        return
    figures: dict[str, dict[str, float]] = {}
    for name in arguments.runtime or RUNTIMES:
        for spec in SPECS:
            found = overhead(name, SPECS[spec])
            if found:
                figures[f"{spec}@{name}"] = found
                print(f"{spec}@{name}: {found}", flush=True)
    environment = describe_environment(threads=1, packages=("torch", *figures))
    content = json.dumps({"overhead": figures, "cpu": environment.cpu}, indent=2)
    print(content)
    if arguments.output:
        arguments.output.write_text(content + "\n")


def overhead(name: str, spec: QuantSpec) -> dict[str, float] | None:
    """Return the figures of one runtime and precision, None where there is no such artifact."""
    from quant_explorer.models import load_model

    model = load_model("small_cnn", weights=None, classes=10, image_shape=SHAPE, seed=0).module.eval()
    runtime = RUNTIMES[name]()
    candidate = Candidate(model, spec)
    reason = runtime.unavailable() or runtime.unsupported(candidate)
    if reason:
        print(f"{name}: {reason}")
        return None
    rng = np.random.default_rng(0)
    calibration = [rng.standard_normal((32, *SHAPE), dtype=np.float32)]
    with tempfile.TemporaryDirectory() as folder:
        lowering = runtime.lower(candidate, calibration, Path(folder))
        options = json.dumps(dict(lowering.options))
        done = subprocess.run(
            [sys.executable, __file__, "--child", name, options, folder],
            env=os.environ | thread_environment(1),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def time_pair(name: str, options: str, folder: str) -> dict[str, float]:
    """Open the artifact both ways in this process and time blocks of calls in turn."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, measuring_cores(1))
    runtime = RUNTIMES[name](**json.loads(options))
    runtime.load_libraries(1)
    session = runtime.open(Path(folder))
    bare = documented_call(name, Path(folder))
    batch = np.random.default_rng(1).standard_normal((1, *SHAPE), dtype=np.float32)
    blocks: dict[Callable[[Batch], object], list[float]] = {session.run: [], bare: []}
    for number in range(PAIRS):
        calls = list(blocks) if number % 2 else list(blocks)[::-1]
        for call in calls:
            blocks[call].append(median_call(call, batch))
    ours, theirs = (np.array(found) for found in blocks.values())
    ratios = np.sort(ours / theirs)
    return {
        "ratio": round(float(np.median(ratios)), 4),
        "ratio_quartile_low": round(float(ratios[len(ratios) // 4]), 4),
        "ratio_quartile_high": round(float(ratios[-len(ratios) // 4]), 4),
        "session_us": round(float(np.median(ours)) * 1e6, 2),
        "bare_us": round(float(np.median(theirs)) * 1e6, 2),
    }


def median_call(call: Callable[[Batch], object], batch: Batch) -> float:
    """Return the median duration in seconds of the calls of one block."""
    durations = []
    for _ in range(3):
        call(batch)
    end = time.perf_counter() + BLOCK_S
    while (start := time.perf_counter()) < end:
        call(batch)
        durations.append(time.perf_counter() - start)
    return float(np.median(durations))


def documented_call(name: str, folder: Path) -> Callable[[Batch], object]:
    """Make a function of a runtime's lines in docs/deploy.md: those before `images` open, the rest call."""
    text = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text()
    block = text.split(f"\n## {name}\n")[1].split("```python\n")[1].split("```")[0]
    statements = ast.parse(block).body
    uses = [
        any(isinstance(node, ast.Name) and node.id == "images" for node in ast.walk(statement))
        for statement in statements
    ]
    first = uses.index(True)
    opening = "\n".join(ast.unparse(statement) for statement in statements[:first])
    calling = "\n".join(ast.unparse(statement) for statement in statements[first:])
    source = f"def call(images):\n{textwrap.indent(calling, '    ')}\n    return logits"
    namespace: dict[str, Callable[[Batch], object]] = {}
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    exec(compile(opening, "docs/deploy.md", "exec"), namespace)
    exec(compile(source, "docs/deploy.md", "exec"), namespace)
    return namespace["call"]


if __name__ == "__main__":
    main()
