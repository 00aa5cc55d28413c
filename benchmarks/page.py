"""How long the page takes: to derive, beside the figures that it shows, and until its first plot stands.

Replays studies of a known truth, or reads run folders with --run-dir. Times depend on the machine, the ratio
of the page to the figures much less.

    python benchmarks/page.py --variants 50 300
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from playwright.sync_api import sync_playwright

from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import RunInfo
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.report.page.render import render_page
from quant_explorer.report.page.sheet import make_sheets
from quant_explorer.testing.replay import Played, Scene, play

T = TypeVar("T")
RUNTIMES = ("eager", "torchscript", "inductor", "onnxruntime", "openvino", "executorch")
REPEATS = 5
DRAWN = "document.querySelector('.frontier-plot .point') ? performance.now() : null"


def main() -> None:
    """Measure each study, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--variants", type=int, nargs="*", default=[50, 300], help="sizes of replayed studies"
    )
    parser.add_argument(
        "--run-dir", type=Path, nargs="*", default=[], help="folders with run.json and study.jsonl"
    )
    parser.add_argument("--output", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.variants:
            study = replayed(Path(folder) / f"{count}.jsonl", count)
            run = RunInfo(Settings(data="toy"), MeasurementProtocol())
            figures[f"{count} variants, replayed"] = measure(study, run, Path(folder))
        for run_dir in arguments.run_dir:
            described = RunFolder(run_dir).describe()
            if described is None:
                parser.error(f"{run_dir}: no run.json")
            run = RunInfo(described.settings, described.protocol)
            figures[str(run_dir)] = measure(RunFolder(run_dir).load_study(), run, Path(folder))
    content = json.dumps(figures, indent=2)
    print(content)
    if arguments.output:
        arguments.output.write_text(content + "\n")


def replayed(path: Path, count: int) -> StudyFile:
    """Return a study of `count` variants on six runtimes, in groups of fifty that share the baseline."""
    variants = [
        Played(
            "fp32_baseline" if number < len(RUNTIMES) else f"pruned{number // len(RUNTIMES)}",
            runtime=RUNTIMES[number % len(RUNTIMES)],
            slowness=1 / (1 + number * 7 % count / 20),
            wrong=100 + number * 5 % 60,
            size_bytes=1_000_000 - 3_000 * (number * 11 % count),
            memory_bytes=10_000_000 + 100_000 * (number * 13 % count),
            group=f"group {number // 50}",
        )
        for number in range(count)
    ]
    return play(
        path, variants, Scene(images=10_000, rounds=12, batch_sizes=(1, 8, 32), noise=0.02, drift=0.02)
    )


def measure(study: StudyFile, run: RunInfo, folder: Path) -> dict[str, float]:
    """Return the seconds of each step, how much the page adds to the derivation, and its size."""
    summarized_s, found = timed(lambda: summarize(study, run))
    sheets_s, sheets = timed(lambda: make_sheets(study, found))
    rendered_s, page = timed(lambda: render_page(found, sheets))
    path = folder / "index.html"
    path.write_bytes(page)
    return {
        "figures_s": round(summarized_s, 3),
        "page_s": round(sheets_s + rendered_s, 3),
        "page_over_figures": round((sheets_s + rendered_s) / summarized_s, 3),
        "first_plot_s": round(first_plot_s(path), 3),
        "page_mb": round(len(page) / 1e6, 2),
    }


def timed(action: Callable[[], T]) -> tuple[float, T]:
    """Return how long an action took, in seconds, and what it returned."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def first_plot_s(path: Path) -> float:
    """Return the median of a few loads: from navigation until the frontier has points."""
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(REPEATS):
            page = browser.new_page()
            page.goto(path.as_uri())
            found.append(float(page.wait_for_function(DRAWN, timeout=120_000).json_value()) / 1e3)
            page.close()
        browser.close()
    return sorted(found)[len(found) // 2]


if __name__ == "__main__":
    main()
