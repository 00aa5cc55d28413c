"""How fast images are scored beside the bare runtime on tensors in memory, in one interleaved run.

One worker opens one artifact. In turn it scores images as `evaluate` does (pixels from the cache, prepared by
the parent, over the pipe), and calls the session on a batch that it holds. The figure is the ratio of images
a second, turn by turn; 0.9 is the target at batch 32.

    python benchmarks/evaluate.py --runtime onnxruntime --model mobilenet_v3_large
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.data.dataset import Dataset, Images
from quant_explorer.core.progress import Silent
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.datasets import input_spec
from quant_explorer.machine.environment import describe_environment
from quant_explorer.models import load_model
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.scoring import score_split
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker.messages import Opening
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.runtimes import RUNTIMES

CLASSES = 10


def main() -> None:
    """Lower a model, score and call in turn, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), default="onnxruntime")
    parser.add_argument("--model", default="mobilenet_v3_large")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        ratios, scored, bare = run(arguments, Path(folder))
    environment = describe_environment(threads=1, packages=("torch", arguments.runtime))
    figures = {
        "ratio_median": round(float(np.median(ratios)), 4),
        "ratio_min": round(min(ratios), 4),
        "scored_images_per_s": round(float(np.median(scored)), 1),
        "bare_images_per_s": round(float(np.median(bare)), 1),
        **{name: getattr(arguments, name) for name in ("runtime", "model", "image_size", "batch", "images")},
        "cpu": environment.cpu,
    }
    content = json.dumps(figures, indent=2)
    print(content)
    if arguments.output:
        arguments.output.write_text(content + "\n")


def run(arguments: argparse.Namespace, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Return the ratio, and the images a second of both, of each turn."""
    subject = random_subject(arguments)
    # All images are scored, however long it takes.
    protocol = MeasurementProtocol(batch_sizes=(1, arguments.batch), time_limit_s=3600.0)
    experiment = Experiment(subject, RunFolder(folder), protocol)
    runtime = RUNTIMES[arguments.runtime]()
    artifact = folder / "artifact"
    artifact.mkdir()
    lowering = runtime.lower(Candidate(subject.model, QuantSpec()), subject.calibration, artifact)
    ratios, scored, bare = [], [], []
    with experiment.start_worker(runtime, lowering.options) as worker:
        worker.assign(Opening(lowering.options, str(artifact)))
        worker.open(subject.batch(arguments.batch))
        for turn in range(arguments.turns + 1):
            ours, theirs = score(worker, experiment), call_bare(worker, experiment)
            if turn:  # The first warms up.
                scored.append(ours)
                bare.append(theirs)
                ratios.append(ours / theirs)
                print(f"turn {turn}: scoring / bare = {ratios[-1]:.3f}", flush=True)
    return ratios, scored, bare


def random_subject(arguments: argparse.Namespace) -> Subject:
    """Return an untrained model with random pixels, which cost what others do."""
    size, count = arguments.image_size, arguments.images
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    images = Images(pixels, np.arange(count), np.arange(count) % CLASSES)
    calibrate = Images(pixels, images.indices[:32], images.labels[:32])
    mean, std = (0.5,) * 3, (0.25,) * 3
    classes = tuple(map(str, range(CLASSES)))
    dataset = Dataset("random", classes, calibrate, calibrate, calibrate, images, mean, std, False, "random")
    loaded = load_model(arguments.model, weights=None, classes=CLASSES, image_shape=(3, size, size), seed=0)
    settings = Settings(data="random", model=arguments.model, data_dir=Path("data"))
    spec = input_spec(dataset, loaded.input_shape)
    model = loaded.module.eval()
    return Subject(arguments.model, model, spec, dataset, True, "", settings, Silent())


def score(worker: Worker, experiment: Experiment) -> float:
    """Return images a second of scoring the report split."""
    start = time.perf_counter()
    score_split(worker, (), "benchmark", experiment, experiment.subject.dataset.report)
    return len(experiment.subject.dataset.report) / (time.perf_counter() - start)


def call_bare(worker: Worker, experiment: Experiment) -> float:
    """Return images a second of calls on a held batch, over about as many images."""
    size = max(experiment.protocol.batch_sizes)
    worker.hold(experiment.subject.batch(size))
    calls: list[int] = []
    while len(calls) * size < len(experiment.subject.dataset.report):
        calls += worker.time(0)
    return size * len(calls) / (sum(calls) / 1e9)


if __name__ == "__main__":
    main()
